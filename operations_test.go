package peerlimit

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every kind of event and every metric has a row of its own in docs/operations.md, and every row is about one.
func TestOperationsExplainsEventsAndMetrics(t *testing.T) {
	assert.ElementsMatch(t, eventConstants(t), firstCells(t, "Events"))

	var metrics []string
	for _, of := range []reflect.Type{reflect.TypeFor[Stats](), reflect.TypeFor[LimiterStats]()} {
		for _, field := range reflect.VisibleFields(of) {
			metrics = append(metrics, field.Name)
		}
	}
	assert.ElementsMatch(t, metrics, firstCells(t, "Metrics"))
	for _, origin := range originNames {
		assert.Contains(t, operationsSection(t, "Metrics"), "`"+origin+"`")
	}
}

// operationsSection returns the text from a heading to the next one of the same level.
func operationsSection(t *testing.T, heading string) string {
	t.Helper()
	text, err := os.ReadFile("docs/operations.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "\n## "+heading+"\n")
	require.True(t, found, heading)
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

// firstCells returns what is quoted in the first cells of a section's tables.
func firstCells(t *testing.T, heading string) (cells []string) {
	t.Helper()
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(operationsSection(t, heading), -1) {
		cells = append(cells, row[1])
	}
	return cells
}

// eventConstants returns the names of the kinds of events that events.go declares.
func eventConstants(t *testing.T) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "events.go", nil, 0)
	require.NoError(t, err)
	for _, declaration := range file.Decls {
		group, is := declaration.(*ast.GenDecl)
		if !is || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			if name := spec.(*ast.ValueSpec).Names[0].Name; strings.HasPrefix(name, "Event") {
				names = append(names, name)
			}
		}
	}
	require.Len(t, names, len(eventNames))
	return names
}
