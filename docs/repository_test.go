// Package docs holds what the documents say about the repository against the repository.
package docs

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = ".."

// text returns a file of the repository.
func text(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return string(content)
}

// files returns the names of all files of the repository that match, but for hidden folders.
func files(t *testing.T, match func(name string) bool) (names []string) {
	t.Helper()
	require.NoError(t, fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case !entry.IsDir() && match(name):
			names = append(names, name)
		}
		return nil
	}))
	return names
}

// rows returns the cells of all rows of a document's tables.
func rows(t *testing.T, name string) (cells [][]string) {
	t.Helper()
	for line := range strings.Lines(text(t, name)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "| ") {
			cells = append(cells, strings.Split(strings.Trim(line, "| "), " | "))
		}
	}
	return cells
}

// Each nested module has its row in CONTRIBUTING.md, and its place in .ci/run.
func TestModulesAreListed(t *testing.T) {
	var modules, listed []string
	for _, name := range files(t, func(name string) bool { return path.Base(name) == "go.mod" && name != "go.mod" }) {
		modules = append(modules, path.Dir(name))
	}
	require.NotEmpty(t, modules)
	for _, row := range rows(t, "CONTRIBUTING.md")[1:] {
		listed = append(listed, strings.Trim(row[0], "`"))
	}
	assert.ElementsMatch(t, modules, listed, "CONTRIBUTING.md")
	tested := regexp.MustCompile(`(?m)^modules=\((.*?)\)`).FindStringSubmatch(text(t, ".ci/run"))
	require.Len(t, tested, 2)
	assert.ElementsMatch(t, modules, strings.Fields(tested[1]), ".ci/run")
}

// THIRD_PARTY.md names each folder with files of others, with the version and the licence that these have.
func TestFilesOfOthersAreListed(t *testing.T) {
	var folders, listed []string
	for _, name := range files(t, func(name string) bool {
		return path.Base(name) == "LICENSE" || regexp.MustCompile(`\.min\.(js|css)$`).MatchString(name)
	}) {
		if folder := path.Dir(name); folder != "." && !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
	}
	for _, row := range rows(t, "THIRD_PARTY.md")[1:] {
		require.Len(t, row, 5)
		version, licence, folder := row[1], row[2], strings.Trim(row[3], "`")
		listed = append(listed, folder)
		assert.True(t, strings.HasPrefix(text(t, path.Join(folder, "LICENSE")), licence), folder)
		scripts, err := filepath.Glob(filepath.Join(root, folder, "*.js"))
		require.NoError(t, err)
		require.Len(t, scripts, 1, folder)
		script, err := os.ReadFile(scripts[0])
		require.NoError(t, err)
		assert.Contains(t, string(script[:200]), "v"+version, scripts[0])
	}
	assert.ElementsMatch(t, folders, listed)
}

var (
	link    = regexp.MustCompile(`\]\(([^()\s#]*)(?:#([^()\s]*))?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are the names of a document's headings in links, as GitHub makes them.
func anchors(t *testing.T, name string) (all []string) {
	t.Helper()
	for _, found := range heading.FindAllStringSubmatch(text(t, name), -1) {
		all = append(all, strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(found[1]), ""), " ", "-"))
	}
	return all
}

// Links to files of the repository, and to their headings, lead somewhere.
func TestLinksLeadSomewhere(t *testing.T) {
	links := 0
	for _, name := range files(t, func(name string) bool { return path.Ext(name) == ".md" && !strings.Contains(name, "/testdata/") }) {
		if strings.HasPrefix(name, "bench/document/") {
			continue // parts of docs/benchmarks.md, with links as there
		}
		for _, found := range link.FindAllStringSubmatch(text(t, name), -1) {
			if strings.Contains(found[1], "://") {
				continue
			}
			links++
			target := name
			if found[1] != "" {
				target = path.Join(path.Dir(name), found[1])
			}
			_, err := os.Stat(filepath.Join(root, target))
			if assert.NoError(t, err, "in %s", name) && found[2] != "" {
				assert.Contains(t, anchors(t, target), found[2], "in %s", name)
			}
		}
	}
	assert.Greater(t, links, 20)
}

// commands are those that documents say measure or test something, with what they name and where.
var commands = regexp.MustCompile("(?:cd ([\\w/.-]+) && )?go test ([^`\n]*?-(?:bench|run|fuzz) [^`\n]*)")

// A command that stands beside a figure, or tells how to run a test, names something that is there.
func TestCommandsNameWhatIsThere(t *testing.T) {
	isDocument := func(name string) bool {
		return path.Ext(name) == ".md" && name != "CHANGELOG.md" && !strings.Contains(name, "node_modules")
	}
	checked := 0
	for _, name := range files(t, isDocument) {
		for _, found := range commands.FindAllStringSubmatch(text(t, name), -1) {
			folder := found[1]
			patterns, packages := named(found[2])
			for _, each := range packages {
				each = path.Join(folder, each)
				for _, pattern := range patterns {
					checked++
					assert.True(t, has(t, each, pattern), "%s: %s has no function %s: %s", name, each, pattern, found[0])
				}
			}
		}
	}
	require.Greater(t, checked, 20)
}

// named returns the patterns that the arguments of a command name functions by, and the packages.
func named(arguments string) (patterns, packages []string) {
	fields := strings.Fields(strings.NewReplacer("'", "", `\|`, "|").Replace(arguments))
	for i, field := range fields {
		switch {
		case slices.Contains([]string{"-bench", "-run", "-fuzz"}, field) && i+1 < len(fields):
			if pattern := fields[i+1]; pattern != "^$" && pattern != "." {
				patterns = append(patterns, strings.Split(strings.Split(pattern, "/")[0], "|")...)
			}
		case field == "." || strings.HasPrefix(field, "./"):
			if !strings.HasSuffix(field, "/...") {
				packages = append(packages, field)
			}
		}
	}
	return patterns, packages
}

// has reports whether a test file of a folder has a test, benchmark, fuzz target or example that a pattern names.
func has(t *testing.T, folder, pattern string) bool {
	t.Helper()
	functions := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz|Example)\w*)`)
	wanted := regexp.MustCompile(pattern)
	return slices.ContainsFunc(files(t, func(name string) bool {
		return path.Dir(name) == path.Clean(folder) && strings.HasSuffix(name, "_test.go")
	}), func(name string) bool {
		return slices.ContainsFunc(functions.FindAllStringSubmatch(text(t, name), -1), func(f []string) bool { return wanted.MatchString(f[1]) })
	})
}

// What the table of packages says that each imports is what it imports, but for small helpers that know nothing of ours.
func TestPackagesImportWhatIsSaid(t *testing.T) {
	const module = "github.com/peerlimit/peerlimit/"
	helpers := []string{"signal", "seldom", "source", "printable"}
	imported := regexp.MustCompile(`(?m)^\t(?:\w+ )?"` + module + `([\w/]+)"`)
	checked := 0
	for _, row := range rows(t, "docs/internals/architecture.md") {
		name, is := strings.CutPrefix(strings.Trim(row[0], "`"), "internal/")
		if !is || len(row) != 3 {
			continue
		}
		checked++
		var imports []string
		for _, file := range files(t, func(file string) bool {
			return path.Dir(file) == "internal/"+name && path.Ext(file) == ".go" && !strings.HasSuffix(file, "_test.go")
		}) {
			for _, found := range imported.FindAllStringSubmatch(text(t, file), -1) {
				if of := strings.TrimPrefix(found[1], "internal/"); !slices.Contains(helpers, of) && !slices.Contains(imports, of) {
					imports = append(imports, of)
				}
			}
		}
		var said []string
		if row[2] != "none" {
			said = strings.Split(row[2], ", ")
		}
		assert.ElementsMatch(t, said, imports, "internal/%s", name)
	}
	require.Equal(t, 15, checked)
}
