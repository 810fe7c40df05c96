package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var screenshots = flag.String("screenshots", "", "write pictures of the pages to this `directory`")

//go:embed axe/axe.min.js
var axe string

// patience bounds everything that is waited for; what is waited for takes a small part of it.
const patience = 40 * time.Second

// tab is a tab of a browser. Whatever its console complains about, and every request that leaves this machine, fails the test.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex // guards faults
	faults []string
}

// chromium returns the browser's program, or skips the test.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("no Chromium is installed: on Debian, apt-get install chromium")
	return ""
}

// openTab starts a browser and opens a page.
func openTab(t *testing.T, address string, before ...chromedp.Action) *tab {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true), chromedp.WSURLReadTimeout(patience))
	ctx, end := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(end)
	ctx, end = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {})) // of events that are newer than chromedp
	t.Cleanup(end)
	b := &tab{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, b.notice)
	b.do(append(append([]chromedp.Action{log.Enable(), network.Enable()}, before...), chromedp.Navigate(address))...)
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		assert.Empty(t, b.faults, "what the browser complains about")
	})
	return b
}

// notice keeps what is wrong.
func (b *tab) notice(event any) {
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning || e.Type == runtime.APITypeAssert {
			b.fault("console: %s", asJSON(e.Args))
		}
	case *runtime.EventExceptionThrown:
		b.fault("exception: %s", e.ExceptionDetails.Error())
	case *log.EventEntryAdded:
		if e.Entry.Level == log.LevelError || e.Entry.Level == log.LevelWarning {
			b.fault("log: %s (%s)", e.Entry.Text, e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if err != nil || u.Scheme != "data" && u.Hostname() != "127.0.0.1" {
			b.fault("a request leaves this machine: %s", e.Request.URL)
		}
	}
}

func (b *tab) fault(format string, values ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = append(b.faults, fmt.Sprintf(format, values...))
}

// do does something in the tab.
func (b *tab) do(actions ...chromedp.Action) {
	b.t.Helper()
	done := make(chan error, 1)
	go func() { done <- chromedp.Run(b.ctx, actions...) }()
	select {
	case err := <-done:
		require.NoError(b.t, err)
	case <-time.After(patience):
		require.Fail(b.t, "the browser does not do what it is told")
	}
}

// eval returns what an expression is in the page.
func eval[T any](b *tab, expression string) (value T) {
	b.t.Helper()
	b.do(chromedp.Evaluate(expression, &value))
	return value
}

// text is what is written in the first element that a selector finds, or "" when there is none.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return eval[string](b, fmt.Sprintf(`document.querySelector(%q)?.textContent ?? ""`, selector))
}

// waitFor waits until an expression is true in the page.
func (b *tab) waitFor(what, expression string) {
	b.t.Helper()
	ok := assert.Eventually(b.t, func() bool { return eval[bool](b, expression) }, patience, 100*time.Millisecond)
	if !ok {
		b.picture("failed-" + what)
		require.Fail(b.t, "never seen: "+what, "%s", eval[string](b, `document.body.innerText`))
	}
}

// contains is an expression for whether an element contains a text.
func contains(selector, text string) string {
	return fmt.Sprintf(`(document.querySelector(%q)?.textContent ?? "").includes(%q)`, selector, text)
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(selector, chromedp.ByQuery))
}

// look is a way in which a page is looked at.
type look struct {
	name  string
	width int64
	dark  bool
}

var looks = []look{{"light", 1280, false}, {"dark", 1280, true}, {"narrow", 360, false}}

// inEachLook shows the page in all looks; in each it must be accessible and fit, and is photographed.
func (b *tab) inEachLook(name string) {
	b.t.Helper()
	for _, l := range looks {
		scheme := "light"
		if l.dark {
			scheme = "dark"
		}
		b.do(
			emulation.SetDeviceMetricsOverride(l.width, 900, 1, false),
			emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
			chromedp.Sleep(time.Second), // it is drawn again
		)
		b.requireAccessible(name + " " + l.name)
		width := eval[int](b, `document.documentElement.scrollWidth`)
		assert.LessOrEqual(b.t, width, int(l.width), "%s, %s: wider than the window", name, l.name)
		b.picture(name + "-" + l.name)
	}
	b.do(emulation.SetDeviceMetricsOverride(looks[0].width, 900, 1, false), emulation.SetEmulatedMedia())
}

// requireAccessible has axe look for what keeps people from using the page.
func (b *tab) requireAccessible(name string) {
	b.t.Helper()
	var violations []struct {
		ID    string
		Help  string
		Nodes []struct {
			HTML           string
			FailureSummary string
		}
	}
	var found string
	b.do(chromedp.Evaluate(axe+"; true", nil), chromedp.Evaluate(`axe.run().then((r) => JSON.stringify(r.violations))`, &found,
		func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	require.NoError(b.t, json.Unmarshal([]byte(found), &violations))
	for _, v := range violations {
		for _, n := range v.Nodes {
			assert.Fail(b.t, name+": "+v.ID, "%s: %s\n%s", v.Help, n.HTML, n.FailureSummary)
		}
	}
}

// picture writes what the page looks like, if somebody wants to look.
func (b *tab) picture(name string) {
	b.t.Helper()
	if *screenshots == "" {
		return
	}
	var picture []byte
	b.do(chromedp.FullScreenshot(&picture, 85))
	require.NoError(b.t, os.MkdirAll(*screenshots, 0o755))
	require.NoError(b.t, os.WriteFile(filepath.Join(*screenshots, name+".jpg"), picture, 0o644))
}

func asJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// forgive takes back complaints that contain a text, because they are what the test is about.
func (b *tab) forgive(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = slices.DeleteFunc(b.faults, func(fault string) bool { return strings.Contains(fault, text) })
}

// shown is text, for a page that runs no scripts.
func (b *tab) shown(selector string) (shown string) {
	b.t.Helper()
	b.do(chromedp.Text(selector, &shown, chromedp.ByQuery))
	return shown
}
