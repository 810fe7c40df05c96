package peerlimit

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every line that the library logs has a row in docs/operations.md with its level and its attributes, every row is a line, and no
// attribute has a key that is not listed.
func TestOperationsExplainsLogLines(t *testing.T) {
	found := findLogLines(t)
	section := operationsSection(t, "Log lines")
	var rows []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([A-Z]+) \\| ([^|]*) \\| ([^|]+) \\| ([^|]+) \\|$").FindAllStringSubmatch(section, -1) {
		rows = append(rows, logLine(row[1], row[2], strings.Fields(strings.NewReplacer("`", "", ",", "").Replace(row[3]))))
	}
	assert.ElementsMatch(t, found.lines, rows)

	var keys []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| [^A-Z]").FindAllStringSubmatch(section, -1) {
		keys = append(keys, row[1])
	}
	assert.ElementsMatch(t, slices.Sorted(found.keys()), keys)

	// Each kind's line names the kind.
	for i, name := range eventConstants(t) {
		line := eventLines[EventKind(i+1)]
		assert.Regexp(t, fmt.Sprintf("(?m)^\\| `%s` \\| %s \\|.*`%s`", regexp.QuoteMeta(line.Text), line.Level, name), section)
	}
}

// The finder sees each form of a log call, and what it must not let pass.
func TestLogLinesAreFound(t *testing.T) {
	for source, want := range map[string]string{
		`n.log.Warn("a b", "member", m, slog.Any("err", err))`:       `a b | WARN | err member`,
		`slog.ErrorContext(ctx, "a", "addr", a)`:                     `a | ERROR | addr`,
		`l.Log(ctx, slog.LevelInfo, "a")`:                            `a | INFO | `,
		`slog.LogAttrs(ctx, slog.LevelDebug, "a", slog.Int("n", 1))`: `a | DEBUG | n`,
		`g.refused[0].Warn("a", slog.Any("addr", x))`:                `a | WARN | addr suppressed`,
		`use(eventLine{slog.LevelWarn, "a"})`:                        `a | WARN | detail member`,
		`n.log.Info("a"+b)`:                                          "not fixed",
		`n.log.Info(fmt.Sprintf("a %d", 1))`:                         "not fixed",
		`n.log.Info("a", attributes...)`:                             "not fixed",
		`n.log.Info("a", key, 1)`:                                    "not fixed",
		`n.log.Log(ctx, level, "a")`:                                 "not fixed",
		`log.Printf("a")`:                                            "not fixed",
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "a.go", "package a\nfunc f() {"+source+"}", 0)
		require.NoError(t, err)
		var found logLines
		found.look(file)
		if want == "not fixed" {
			assert.NotEmpty(t, found.faults, source)
			continue
		}
		assert.Equal(t, []string{want}, found.lines, source)
		assert.Empty(t, found.faults, source)
	}
}

// logLines is what the code logs.
type logLines struct {
	lines  []string
	faults []string
	named  map[string]bool // the keys of attributes, those of With included
}

func (l *logLines) keys() func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range l.named {
			if !yield(key) {
				return
			}
		}
	}
}

func logLine(text, level string, keys []string) string {
	keys = slices.Clone(keys)
	slices.Sort(keys)
	return text + " | " + level + " | " + strings.Join(keys, " ")
}

// logWrappers are the functions that log what they are given. Their callers have the lines.
var logWrappers = []string{"Log.Warn", "Log.Log", "events.write", "gossipLog.Write", "Log.line"}

// notLibrary has the directories whose programs log for themselves.
var notLibrary = []string{"examples", "bench", "chaos", "e2e", "testdata"}

func findLogLines(t *testing.T) *logLines {
	t.Helper()
	found, files := &logLines{}, 0
	require.NoError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != "." && (strings.HasPrefix(name, ".") || slices.Contains(notLibrary, name)) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err == nil {
			before := len(found.faults)
			found.look(file)
			for i := range found.faults[before:] {
				found.faults[before+i] = path + ": " + found.faults[before+i]
			}
		}
		return err
	}))
	require.Greater(t, files, 60)
	require.Empty(t, found.faults, "a log line is a fixed message and attributes with fixed keys")
	slices.Sort(found.lines)
	found.lines = slices.Compact(found.lines) // one line may be logged in two places
	return found
}

// look adds the log lines of a file.
func (l *logLines) look(file *ast.File) {
	if l.named == nil {
		l.named = make(map[string]bool)
	}
	for _, declaration := range file.Decls {
		if f, is := declaration.(*ast.FuncDecl); is && slices.Contains(logWrappers, receiverName(f)+"."+f.Name.Name) {
			ast.Inspect(f, func(node ast.Node) bool { // only their own attributes
				if call, is := node.(*ast.CallExpr); is {
					if key, is := attributeKey(call); is {
						l.named[key] = true
					}
				}
				return true
			})
			continue
		}
		ast.Inspect(declaration, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.CallExpr:
				l.call(node)
			case *ast.CompositeLit:
				l.event(node)
			}
			return true
		})
	}
}

func receiverName(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	of := f.Recv.List[0].Type
	if star, is := of.(*ast.StarExpr); is {
		of = star.X
	}
	name, _ := of.(*ast.Ident)
	if name == nil {
		return ""
	}
	return name.Name
}

// call adds the line of a call that logs.
func (l *logLines) call(call *ast.CallExpr) {
	method, is := call.Fun.(*ast.SelectorExpr)
	if !is || len(call.Args) == 0 {
		return
	}
	if from, is := method.X.(*ast.Ident); is && from.Name == "http" {
		return // http.Error answers a request
	}
	name, args := method.Sel.Name, call.Args
	level, extra := "", []string(nil)
	switch name {
	case "Debug", "Info", "Warn", "Error":
		level = strings.ToUpper(name)
		if isSeldom(method.X) {
			if _, fixed := literal(args[0]); !fixed {
				return // memberlist's own words
			}
			extra = []string{"suppressed"}
		}
	case "DebugContext", "InfoContext", "WarnContext", "ErrorContext":
		level, args = strings.ToUpper(strings.TrimSuffix(name, "Context")), args[1:]
	case "Log", "LogAttrs":
		if len(args) < 3 {
			return // a logarithm
		}
		level, args = levelName(args[1]), args[2:]
	case "With":
		if from, is := method.X.(*ast.SelectorExpr); is && strings.HasSuffix(strings.ToLower(from.Sel.Name), "log") || is && from.Sel.Name == "Logger" {
			l.attributes(args)
		}
		return
	case "Print", "Printf", "Println", "Fatal", "Fatalf", "Panicf":
		if from, is := method.X.(*ast.Ident); is && from.Name == "log" {
			l.faults = append(l.faults, "log."+name)
		}
		return
	default:
		return
	}
	text, fixed := "", false
	if len(args) > 0 {
		text, fixed = literal(args[0])
	}
	keys, named := []string(nil), false
	if fixed {
		keys, named = l.attributes(args[1:])
	}
	if !fixed || !named || level == "" || call.Ellipsis.IsValid() {
		l.faults = append(l.faults, fmt.Sprintf("%s %q", name, text))
		return
	}
	l.lines = append(l.lines, logLine(text, level, append(keys, extra...)))
}

// isSeldom reports whether what logs is a seldom.Log, which this package and package membership call refused or kinds.
func isSeldom(e ast.Expr) bool {
	if of, is := e.(*ast.IndexExpr); is {
		e = of.X
	}
	from, is := e.(*ast.SelectorExpr)
	return is && (strings.HasPrefix(from.Sel.Name, "refused") || from.Sel.Name == "kinds")
}

// event adds the line of an event: a level and a text.
func (l *logLines) event(value *ast.CompositeLit) {
	if len(value.Elts) != 2 || levelName(value.Elts[0]) == "" {
		return
	}
	if text, fixed := literal(value.Elts[1]); fixed {
		l.lines = append(l.lines, logLine(text, levelName(value.Elts[0]), []string{"member", "detail"}))
		return
	}
	l.faults = append(l.faults, "an event's line")
}

// attributes returns the keys of attributes, and whether all are fixed.
func (l *logLines) attributes(args []ast.Expr) (keys []string, fixed bool) {
	for i := 0; i < len(args); i++ {
		key, is := "", false
		if call, attr := args[i].(*ast.CallExpr); attr {
			key, is = attributeKey(call)
		} else if key, is = literal(args[i]); is {
			i++
		}
		if !is {
			return nil, false
		}
		l.named[key] = true
		keys = append(keys, key)
	}
	return keys, true
}

// attributeKey returns the key of a call such as slog.Any("err", err).
func attributeKey(call *ast.CallExpr) (string, bool) {
	method, is := call.Fun.(*ast.SelectorExpr)
	if !is || len(call.Args) != 2 {
		return "", false
	}
	if from, is := method.X.(*ast.Ident); !is || from.Name != "slog" {
		return "", false
	}
	return literal(call.Args[0])
}

func literal(e ast.Expr) (string, bool) {
	text, is := e.(*ast.BasicLit)
	if !is || text.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(text.Value)
	return s, err == nil
}

// levelName returns WARN for slog.LevelWarn.
func levelName(e ast.Expr) string {
	if level, is := e.(*ast.SelectorExpr); is && strings.HasPrefix(level.Sel.Name, "Level") {
		return strings.ToUpper(strings.TrimPrefix(level.Sel.Name, "Level"))
	}
	return ""
}
