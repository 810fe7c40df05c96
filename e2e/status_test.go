package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/statuspage"
)

// cluster is nodes on loopback, with a limiter on each.
type cluster struct {
	nodes    []*peerlimit.Node
	limiters []*peerlimit.Limiter
}

func startCluster(t *testing.T, size int) *cluster {
	t.Helper()
	c := new(cluster)
	var seeds []string
	for i := range size {
		node, err := peerlimit.Start(peerlimit.Config{
			Cluster: t.Name(), Name: fmt.Sprint("api-", i+1), Join: seeds, Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		t.Cleanup(func() { _ = node.Close() })
		seeds = append(seeds, node.Self().Addr)
		limiter, err := node.Limiter("login", peerlimit.PerMinute(10))
		require.NoError(t, err)
		c.nodes, c.limiters = append(c.nodes, node), append(c.limiters, limiter)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, node := range c.nodes {
		require.NoError(t, node.WaitReady(ctx, size))
	}
	return c
}

// attack takes from a few keys until one of them is exhausted and all are seen to be busy.
func (c *cluster) attack(t *testing.T) {
	t.Helper()
	for i := range 20_000 {
		_, err := c.limiters[0].Take(t.Context(), fmt.Sprint("user-", i%7*(i%3)), 1)
		require.NoError(t, err)
	}
}

// An operator looks: is it healthy, which members are there, which one decides about a key, and why is it denied?
func TestStatusPage(t *testing.T) {
	chromium(t)
	c := startCluster(t, 3)
	page, err := statuspage.New(c.nodes[0], statuspage.Options{})
	require.NoError(t, err)
	defer page.Close()
	server := httptest.NewServer(page)
	defer server.Close()
	c.attack(t)
	time.Sleep(2 * time.Second) // the standbys are known a second after the last join

	b := openTab(t, server.URL)
	b.waitFor("health", contains("#health-h", "Healthy"))
	for _, node := range c.nodes {
		b.waitFor("the member", contains("#members-h + div", node.Self().Name))
	}
	b.waitFor("busy keys", contains("#busiest-h + div", "user-0"))

	b.do(chromedp.SendKeys("#key", "user-0", chromedp.ByQuery))
	b.do(chromedp.Submit("#ask", chromedp.ByQuery), chromedp.WaitVisible(".answer", chromedp.ByQuery))
	b.waitFor("why", contains(".answer", "Takes are denied."))
	place := c.limiters[0].Placement("user-0")
	if place.Owner.Self {
		b.waitFor("the owner", contains(".answer", "This node decides"))
	} else {
		b.waitFor("the owner", contains(".answer", place.Owner.Name))
	}
	b.waitFor("the standby", contains(".answer", place.Standbys[0].Name))
	b.inEachLook("status")

	// The page keeps itself up to date, here when a node says goodbye.
	require.NoError(t, c.nodes[2].Close())
	b.waitFor("the member that left", contains("#events-h + div", "member left"))
	b.waitFor("that all is well", contains("#health-h", "Healthy"))
}

// The page says the same without JavaScript.
func TestStatusPageWithoutScript(t *testing.T) {
	chromium(t)
	c := startCluster(t, 1)
	page, err := statuspage.New(c.nodes[0], statuspage.Options{})
	require.NoError(t, err)
	defer page.Close()
	server := httptest.NewServer(page)
	defer server.Close()

	b := openTab(t, server.URL, emulation.SetScriptExecutionDisabled(true))
	b.do(chromedp.WaitVisible("#health-h", chromedp.ByQuery))
	require.Contains(t, b.shown("#health-h"), "Healthy")
	require.Contains(t, b.shown("#members-h + div"), c.nodes[0].Self().Name)
}
