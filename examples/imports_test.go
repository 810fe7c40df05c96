// Package examples holds the examples to what they are for: one that is copied compiles.
package examples

import (
	"go/parser"
	"go/token"
	"io/fs"
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

// No example imports what only this module may, not in its tests either.
func TestExamplesImportNothingInternal(t *testing.T) {
	for path, imported := range imports(t) {
		for _, name := range imported {
			assert.False(t, strings.HasPrefix(name, module+"internal/"), "%s imports %s", path, name)
		}
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
