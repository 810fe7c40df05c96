//go:build linux

package chaos

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// programBefore builds chaos/node of this checkout against the library as it was in an older commit.
func programBefore(t *testing.T) *os.File {
	commit := *oldCommit
	if commit == "" {
		first, err := exec.Command("git", "log", "--diff-filter=A", "--format=%H", "--reverse", "--", "doc.go").Output()
		if err != nil || len(bytes.Fields(first)) == 0 {
			t.Skip("needs the history of the repository")
		}
		commit = string(bytes.Fields(first)[0]) + "~1"
	}
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	place := t.TempDir()
	archive, err := exec.Command("git", "-C", root, "archive", "--format=tar", commit).Output()
	if err != nil {
		t.Skipf("needs commit %s: %v", commit, err)
	}
	unpack := exec.Command("tar", "-x", "-C", place)
	unpack.Stdin = bytes.NewReader(archive)
	require.NoError(t, unpack.Run())
	require.NoError(t, os.RemoveAll(filepath.Join(place, "chaos", "node"))) // an older node may not understand what this harness asks
	require.NoError(t, os.CopyFS(filepath.Join(place, "chaos", "node"), os.DirFS("node")))
	built, err := buildProgram(place, "./chaos/node")
	require.NoError(t, err)
	t.Cleanup(func() { _ = built.Close() })
	t.Logf("upgrading from %s", strings.TrimSpace(commit))
	return built
}
