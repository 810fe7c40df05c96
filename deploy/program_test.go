package deploy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/resource"
)

const programDir = "../examples/httpserver"

// The program takes the arguments of the manifest: what it complains about is the one that is added, and wrong.
func TestTheProgramTakesTheArguments(t *testing.T) {
	program := filepath.Join(t.TempDir(), "httpserver")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Dir = programDir
	text, err := build.CombinedOutput()
	require.NoError(t, err, "%s", text)

	args := append(load(t).container.Args, "-rate=0")
	text, err = exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(text), "bad flag: -rate 0:")
}

// durationIn returns the value of a constant of the program.
func durationIn(t *testing.T, name string) time.Duration {
	t.Helper()
	files := token.NewFileSet()
	main, err := parser.ParseFile(files, filepath.Join(programDir, "main.go"), nil, 0)
	require.NoError(t, err)
	for _, declaration := range main.Decls {
		group, is := declaration.(*ast.GenDecl)
		if !is || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			constant := spec.(*ast.ValueSpec)
			if constant.Names[0].Name == name {
				return durationOf(t, types.ExprString(constant.Values[0]))
			}
		}
	}
	require.Fail(t, "no such constant", name)
	return 0
}

// durationOf evaluates what is written as a number of seconds.
func durationOf(t *testing.T, expression string) time.Duration {
	t.Helper()
	number, is := strings.CutSuffix(expression, " * time.Second")
	require.True(t, is, expression)
	d, err := time.ParseDuration(number + "s")
	require.NoError(t, err)
	return d
}

// bytesOf returns how many bytes a GOMEMLIMIT such as 100MiB is.
func bytesOf(t *testing.T, limit string) float64 {
	t.Helper()
	size, err := resource.ParseQuantity(strings.TrimSuffix(limit, "B"))
	require.NoError(t, err)
	return float64(size.Value())
}
