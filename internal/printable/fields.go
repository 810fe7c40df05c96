package printable

import (
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Fields are those of a struct that are set, with what may be shown of them: with the number of bytes in place of a secret.
type Fields []Field

// Field is one of them.
type Field struct {
	Name  string
	Value any
}

// notShown stands for the value of a field.
type notShown string

// FieldsOf returns the fields of a struct that are not zero. Only values of the types named here are shown, so that a field which is
// added shows nothing until somebody has thought about it.
func FieldsOf(v any) (fields Fields) {
	all := reflect.ValueOf(v)
	for i := range all.NumField() {
		if all.Field(i).IsZero() {
			continue
		}
		field := Field{all.Type().Field(i).Name, all.Field(i).Interface()}
		switch value := field.Value.(type) {
		case string, []string, bool, int, time.Duration:
		case []byte:
			field.Value = notShown(fmt.Sprintf("(%d bytes)", len(value)))
		case [][]byte:
			field.Value = notShown(fmt.Sprintf("(%d secrets)", len(value)))
		default:
			field.Value = notShown("(set)")
		}
		fields = append(fields, field)
	}
	return fields
}

// Text returns the fields on one line.
func (f Fields) Text() string {
	var b strings.Builder
	for i, field := range f {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(field.Name + ":")
		switch value := field.Value.(type) {
		case string:
			b.WriteString(strconv.Quote(value))
		case []string:
			fmt.Fprintf(&b, "%q", value)
		default:
			fmt.Fprint(&b, value)
		}
	}
	return b.String()
}

// LogValue implements [slog.LogValuer]: it is a group of the fields.
func (f Fields) LogValue() slog.Value {
	var attributes []slog.Attr
	for _, field := range f {
		value := field.Value
		if text, is := value.(notShown); is {
			value = string(text)
		}
		attributes = append(attributes, slog.Any(field.Name, value))
	}
	return slog.GroupValue(attributes...)
}

// Format prints a text with any verb of fmt: those for strings in their way, and the others as it is.
func Format(f fmt.State, verb rune, text string) {
	switch verb {
	case 's', 'q', 'x', 'X':
		_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), text) // an error is the writer's, and its caller learns of it
	default:
		_, _ = io.WriteString(f, text)
	}
}
