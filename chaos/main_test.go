//go:build linux

package chaos

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

var (
	ciSet     = flag.Bool("chaos.ci", false, "run the short scenarios")
	longSet   = flag.Bool("chaos.long", false, "run all scenarios")
	chosen    = flag.String("chaos.run", "", "run the scenarios whose names match this expression")
	repeat    = flag.Int("chaos.repeat", 1, "how often to run each scenario")
	outDir    = flag.String("chaos.out", "", "directory for a result of each scenario, as JSON")
	nodeFlag  = flag.String("chaos.node", "", "program to use as the node; default: chaos/node")
	program   = flag.String("chaos.program", "peerlimit", "what limits, for the results; other than peerlimit, it is measured and not judged")
	oldCommit = flag.String("chaos.old", "", "commit to upgrade from; default: the first one that speaks the protocol of this one")
	inside    = flag.Bool("chaos.inside", false, "this process is in a network namespace that was made for it")
)

// programs are what the scenarios start. They are open files without a name: nothing is left behind, however this ends.
var programs struct{ node, driver *os.File }

func TestMain(m *testing.M) {
	flag.Parse()
	if _, err := regexp.Compile(*chosen); err != nil {
		fmt.Fprintln(os.Stderr, "-chaos.run:", err)
		os.Exit(2)
	}
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func build() (err error) {
	if programs.driver, err = buildProgram(".", "./driver"); err != nil {
		return err
	}
	if *nodeFlag != "" {
		programs.node, err = os.Open(*nodeFlag)
		return err
	}
	programs.node, err = buildProgram(".", "./node")
	return err
}

// buildProgram builds a package and returns the program, which has no name any more.
func buildProgram(dir, pkg string) (*os.File, error) {
	place, err := os.MkdirTemp("", "chaos")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(place)
	name := filepath.Join(place, "program")
	command := exec.Command("go", "build", "-o", name, pkg)
	command.Dir = dir
	if output, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building %s: %w\n%s", pkg, err, output)
	}
	return os.Open(name)
}

// path returns a name by which others can open what is open here, while this process lives.
func path(open *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), open.Fd()) }
