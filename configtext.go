package peerlimit

import (
	"fmt"
	"log/slog"

	"github.com/peerlimit/peerlimit/internal/printable"
)

// A Config is printed by people who look for what is wrong with it, and ends in logs that more people read than may know
// its secrets. fmt reads the bytes of a []byte with most verbs, and asks String for some only; that is why there is Format.

// String returns the fields that are set, on one line, with the number of bytes in place of a secret. fmt prints the same
// with every verb but %p and %w, which vet refuses. A struct that embeds a Config has these methods, too, unless it has its
// own, and is printed as that Config. Of a Config in a field that is not exported, fmt cannot call them, and prints the
// secrets: let such a field be a pointer, of which %v, %+v and %#v print the address.
func (c Config) String() string { return "peerlimit.Config{" + printable.FieldsOf(c).Text() + "}" }

// GoString returns the same as String.
func (c Config) GoString() string { return c.String() }

// Format implements [fmt.Formatter]: every verb prints what String returns, those for strings in their way.
func (c Config) Format(f fmt.State, verb rune) { printable.Format(f, verb, c.String()) }

// LogValue implements [slog.LogValuer]: it is a group of the fields that are set.
func (c Config) LogValue() slog.Value { return printable.FieldsOf(c).LogValue() }

// String returns the node's identity: "peerlimit.Node(api-1-0a1b2c3d)". So do all verbs of fmt, which would otherwise read
// what goroutines of the node are changing.
func (n *Node) String() string {
	if n == nil {
		return "peerlimit.Node(nil)"
	}
	return "peerlimit.Node(" + n.identity + ")"
}

// Format implements [fmt.Formatter].
func (n *Node) Format(f fmt.State, verb rune) { printable.Format(f, verb, n.String()) }
