// Package examples holds the examples to what they are for: one that is copied compiles.
package examples

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/peerlimit/peerlimit/"

// imports returns what each Go file of the examples imports, by its path.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	require.NoError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		all[path] = nil
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			all[path] = append(all[path], imported)
		}
		return nil
	}))
	require.Greater(t, len(all), 10)
	return all
}

// No example imports what only this module may, not in its tests either. None imports an example: the test of a copy would test the
// original.
func TestExamplesImportNothingThatStaysBehind(t *testing.T) {
	for path, imported := range imports(t) {
		for _, name := range imported {
			assert.False(t, strings.HasPrefix(name, module+"internal/"), "%s imports %s", path, name)
			assert.False(t, strings.HasPrefix(name, module+"examples/"), "%s imports %s", path, name)
		}
	}
}

// signup is there to be copied with its test: it needs no module but peerlimit's.
func TestSignupNeedsOnlyPeerlimit(t *testing.T) {
	for path, imported := range imports(t) {
		if filepath.Dir(path) != "signup" {
			continue
		}
		for _, name := range imported {
			first, _, _ := strings.Cut(name, "/")
			assert.True(t, !strings.Contains(first, ".") || strings.HasPrefix(name+"/", module), "%s imports %s", path, name)
		}
	}
}

// Every example compiles with its tests in a module of the user's own.
func TestCopiedExamplesCompile(t *testing.T) {
	all := t.TempDir()
	require.NoError(t, os.CopyFS(all, os.DirFS(".")))
	require.NoError(t, os.Remove(filepath.Join(all, "imports_test.go")))
	own, err := os.ReadFile("../go.mod") // with the versions that this machine has already
	require.NoError(t, err)
	vetCopy(t, all, string(own))
}

// vetCopy makes a directory a module that requires peerlimit, and has it built with its tests.
func vetCopy(t *testing.T, dir, mod string) {
	t.Helper()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	sums, err := os.ReadFile("../go.sum")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600))
	peerlimit := strings.TrimSuffix(module, "/")
	for _, args := range [][]string{
		{"mod", "edit", "-module=shop.example", "-require=" + peerlimit + "@v0.0.0", "-replace=" + peerlimit + "=" + root},
		{"vet", "./..."},
	} {
		command := exec.CommandContext(t.Context(), "go", args...)
		command.Dir = dir
		command.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
		output, err := command.CombinedOutput()
		require.NoError(t, err, "go %s: %s", strings.Join(args, " "), output)
	}
}

// Tests that run clusters in bubbles run on one core with the race detector, as package peerlimittest says.
func TestBubblesAreSafeWithTheRaceDetector(t *testing.T) {
	all := imports(t)
	for path, imported := range all {
		if slices.Contains(imported, "testing/synctest") {
			assert.Contains(t, all, filepath.Join(filepath.Dir(path), "race_test.go"), path)
		}
	}
}
