// Package statuspage shows how a node is, on a web page that is mounted like net/http/pprof:
//
//	page, err := statuspage.New(node, statuspage.Options{})
//	...
//	mux.Handle("/debug/peerlimit", page)
//
// It answers what people ask first: is this node healthy, which members are there, which one owns a key, why is a
// key denied, and which keys are busy. It is the same as JSON for a request that asks for application/json.
//
// The page changes nothing and says nothing secret, but it names members with their addresses, and keys unless
// [Options.HideKeys] is set: serve it where only operators get, as with pprof. It needs nothing from elsewhere, works without
// JavaScript, and with it keeps itself up to date. What does not print, in keys, names and errors, is shown as Go writes it in
// a string, such as \x1b or \u202e, on the page and in the JSON: keys are what clients send, and curl and jq show them on a
// terminal as they are.
package statuspage
