package peerlimit

import (
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// A Config is printed by people who look for what is wrong with it, and ends in logs that more people read than may know
// its secrets. fmt reads the bytes of a []byte with most verbs, and asks String for some only; that is why there is Format.

// String returns the fields that are set, on one line, with the number of bytes in place of a secret. fmt prints the same
// with every verb but %p and %w, which vet refuses. A struct that embeds a Config has these methods, too, unless it has its
// own, and is printed as that Config. Of a Config in a field that is not exported, fmt cannot call them, and prints the
// secrets: let such a field be a pointer, of which %v, %+v and %#v print the address.
func (c Config) String() string {
	var b strings.Builder
	b.WriteString("peerlimit.Config{")
	for i, field := range c.set() {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(field.name + ":")
		switch value := field.value.(type) {
		case string:
			b.WriteString(strconv.Quote(value))
		case []string:
			fmt.Fprintf(&b, "%q", value)
		default:
			fmt.Fprint(&b, value)
		}
	}
	return b.String() + "}"
}

// GoString returns the same as String.
func (c Config) GoString() string { return c.String() }

// Format implements [fmt.Formatter]: every verb prints what String returns, those for strings in their way.
func (c Config) Format(f fmt.State, verb rune) { format(f, verb, c.String()) }

// format prints a text with any verb.
func format(f fmt.State, verb rune, text string) {
	switch verb {
	case 's', 'q', 'x', 'X':
		_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), text) // an error is who prints to's, who learns of it
	default:
		_, _ = io.WriteString(f, text)
	}
}

// LogValue implements [slog.LogValuer]: it is a group of the fields that are set.
func (c Config) LogValue() slog.Value {
	var attributes []slog.Attr
	for _, field := range c.set() {
		value := field.value
		if text, is := value.(notShown); is {
			value = string(text)
		}
		attributes = append(attributes, slog.Any(field.name, value))
	}
	return slog.GroupValue(attributes...)
}

// configField is a field of a Config that is set, with what may be shown of it.
type configField struct {
	name  string
	value any
}

// notShown stands for the value of a field.
type notShown string

// set returns the fields that are not zero. Only values of the types named here are shown, so that a field which is added
// shows nothing until somebody has thought about it.
func (c Config) set() (fields []configField) {
	config := reflect.ValueOf(c)
	for i := range config.NumField() {
		if config.Field(i).IsZero() {
			continue
		}
		field := configField{config.Type().Field(i).Name, config.Field(i).Interface()}
		switch value := field.value.(type) {
		case string, []string, bool, int, time.Duration:
		case []byte:
			field.value = notShown(fmt.Sprintf("(%d bytes)", len(value)))
		case [][]byte:
			field.value = notShown(fmt.Sprintf("(%d secrets)", len(value)))
		default:
			field.value = notShown("(set)")
		}
		fields = append(fields, field)
	}
	return fields
}

// String returns the node's identity: "peerlimit.Node(api-1-0a1b2c3d)". So do all verbs of fmt, which would otherwise read
// what goroutines of the node are changing.
func (n *Node) String() string {
	if n == nil {
		return "peerlimit.Node(nil)"
	}
	return "peerlimit.Node(" + n.identity + ")"
}

// Format implements [fmt.Formatter].
func (n *Node) Format(f fmt.State, verb rune) { format(f, verb, n.String()) }
