package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// demo is a run of the demo with its page.
type demo struct {
	t       *testing.T
	command *exec.Cmd
	page    string
	reading sync.WaitGroup
	output  bytes.Buffer // to be read when reading has ended
}

var pageAddress = regexp.MustCompile(`The page is at (http://\S+)`)

func startDemo(t *testing.T) *demo {
	t.Helper()
	program := filepath.Join(t.TempDir(), "cluster")
	build := exec.Command("go", "build", "-o", program, "github.com/peerlimit/peerlimit/examples/cluster")
	output, err := build.CombinedOutput()
	require.NoError(t, err, "%s", output)

	d := &demo{t: t, command: exec.Command(program, "-http", "127.0.0.1:0")}
	d.command.Stderr = os.Stderr
	stdout, err := d.command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, d.command.Start())
	t.Cleanup(func() { _ = d.command.Process.Kill() }) // for a test that failed; the nodes end with it
	address := make(chan string, 1)
	d.reading.Go(func() {
		defer close(address)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			fmt.Fprintln(&d.output, lines.Text())
			if match := pageAddress.FindStringSubmatch(lines.Text()); match != nil {
				address <- match[1]
			}
		}
	})
	select {
	case d.page = <-address:
		require.NotEmpty(t, d.page, "the demo does not say where its page is")
	case <-time.After(patience):
		require.Fail(t, "the demo says nothing")
	}
	return d
}

// interrupt ends the demo, and returns what it has written.
func (d *demo) interrupt() (output string, status int) {
	require.NoError(d.t, d.command.Process.Signal(os.Interrupt))
	d.reading.Wait()
	_ = d.command.Wait() // the status tells
	return d.output.String(), d.command.ProcessState.ExitCode()
}

const (
	held    = `document.querySelector("#verdict-h").textContent.includes("The limit is held")`
	drawing = `document.querySelector("#total canvas").toDataURL()`
)

// inState is an expression for whether a node is in a state.
func inState(node, state string) string {
	return fmt.Sprintf(`document.querySelector('#nodes tr[data-name=%q]')?.children[2].textContent === %q`, node, state)
}

// What a visitor does: looks, kills, splits, freezes, starts, retires, changes the limit. The limit is held all the time.
func TestDemoPage(t *testing.T) {
	chromium(t)
	d := startDemo(t)
	b := openTab(t, d.page)
	b.waitFor("the verdict", held)
	b.waitFor("owner and standby", `[...document.querySelectorAll("#keys tbody tr")].every((r) => r.children[3].textContent.startsWith("node-") && r.children[4].textContent.startsWith("node-"))`)
	before := eval[string](b, drawing)
	time.Sleep(2 * time.Second)
	assert.NotEqual(t, before, eval[string](b, drawing), "the plot moves")

	owner := b.text(`#keys tr[data-name="alice"] td:nth-child(4)`)
	b.click("#kill-owner")
	b.waitFor("the kill", inState(owner, "killed"))
	b.waitFor("the event", contains("#events", "KILL "+owner))
	b.waitFor("another owner", fmt.Sprintf(`![%q, ""].includes(document.querySelector('#keys tr[data-name="alice"]').children[3].textContent)`, owner))
	b.waitFor("agreement", contains("#events", "after the kill of "+owner))
	require.True(t, eval[bool](b, held))

	b.click("#start")
	b.waitFor("the newcomer", inState("node-6", "running"))

	frozen := b.text(`#keys tr[data-name="alice"] td:nth-child(4)`)
	b.click(fmt.Sprintf(`[aria-label="Freeze %s"]`, frozen))
	b.waitFor("the freeze", inState(frozen, "frozen"))
	b.waitFor("agreement on the freeze", contains("#events", "after the freeze of "+frozen))
	b.click(fmt.Sprintf(`[aria-label="Wake %s"]`, frozen))
	b.waitFor("the wake-up", inState(frozen, "running"))

	b.click("#split")
	b.waitFor("the split", `[...document.querySelectorAll("#nodes tbody tr")].some((r) => r.children[2].textContent === "cut off")`)
	b.waitFor("shares of the limit", `document.querySelector("#by-origin-text").textContent.match(/standby|fallback/)`+` !== null`)
	b.click("#split")
	b.waitFor("the end of the split", contains("#events", "after the split of"))
	b.waitFor("no node cut off", `![...document.querySelectorAll("#nodes tbody tr")].some((r) => r.children[2].textContent === "cut off")`)
	require.True(t, eval[bool](b, held))
	b.inEachLook("demo")

	b.do(chromedp.SetValue("#rate", "40", chromedp.ByQuery), chromedp.SetValue("#burst", "20", chromedp.ByQuery))
	b.click("#limit-form button")
	b.waitFor("the new limit", contains("#verdict-text", "R = 40"))
	b.do(chromedp.SetValue("#load", "2", chromedp.ByQuery), chromedp.Evaluate(`document.querySelector("#load").dispatchEvent(new Event("change"))`, nil))
	b.waitFor("more load", contains("#events", "LOAD: 2 times"))

	leaver := b.text(`#keys tr[data-name="bob"] td:nth-child(4)`)
	b.click(fmt.Sprintf(`[aria-label="Retire %s"]`, leaver))
	b.waitFor("the leave", inState(leaver, "left"))
	time.Sleep(2 * time.Second)
	require.True(t, eval[bool](b, held))

	output, status := d.interrupt()
	assert.Equal(t, 130, status, "%s", output)
	assert.Equal(t, 2, strings.Count(output, "HELD    No window of any key"), "before and after the change of the limit: %s", output)
	assert.NotContains(t, output, "BROKEN")
	b.waitFor("that the demo has ended", `!document.querySelector("#lost").hidden`)
	b.forgive("ERR_CONNECTION_REFUSED")
}
