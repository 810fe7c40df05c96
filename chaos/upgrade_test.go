//go:build linux

package chaos

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/require"
)

// programBefore builds chaos/node of this checkout against the library as it was in an older commit, one that speaks a protocol of
// this one.
func programBefore(t *testing.T) *os.File {
	commit := *oldCommit
	if commit == "" {
		speaks := fmt.Sprintf("ProtocolMax = %d", wire.ProtocolMin)
		first, err := exec.Command("git", "-C", "..", "log", "-S", speaks, "--format=%H", "--reverse", "--", "internal/wire/take.go").Output() // #nosec G204 -- a constant
		if err != nil || len(bytes.Fields(first)) == 0 {
			t.Skip("needs the history of the repository")
		}
		commit = string(bytes.Fields(first)[0])
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
