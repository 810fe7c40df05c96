// Package quorum knows whether this node hears from a majority of its witnesses, and which members are lost by a majority's
// verdict. State is the rule, as plain state that reads no clock; Prober asks the witnesses and feeds it.
package quorum
