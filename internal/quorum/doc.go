// Package quorum knows whether this node hears from a majority of its witnesses, and which members are lost by a majority's
// verdict. State is the rule, as plain state that reads no clock; Prober asks the witnesses and feeds it. Agreement is this node's
// part in the agreement on who the witnesses are.
package quorum
