//go:build unix

package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// visitor is somebody at the page of a run.
type visitor struct {
	t    *testing.T
	page string
}

// visit starts the demo with a page.
func visit(t *testing.T, args ...string) (*program, *visitor) {
	p := startProgram(t, append([]string{"-http", "127.0.0.1:0"}, args...)...)
	p.readTo("The page is at ")
	page := regexp.MustCompile(`http://\S+`).FindString(p.output.String())
	require.NotEmpty(t, page)
	return p, &visitor{t, page}
}

// state is what the page shows.
func (v *visitor) state() (s pageState) {
	response, err := http.Get(v.page + "/state")
	require.NoError(v.t, err)
	defer response.Body.Close()
	require.Equal(v.t, http.StatusOK, response.StatusCode)
	require.NoError(v.t, json.NewDecoder(response.Body).Decode(&s))
	return s
}

// do has a command obeyed, or returns why it was not.
func (v *visitor) do(command string) (status int, why string) {
	response, err := http.Post(v.page+"/do", "application/json", strings.NewReader(command))
	require.NoError(v.t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(v.t, err)
	return response.StatusCode, string(body)
}

func (v *visitor) waitFor(what string, is func(pageState) bool) (s pageState) {
	require.Eventually(v.t, func() bool {
		s = v.state()
		return is(s)
	}, time.Minute, 100*time.Millisecond, what)
	return s
}

func TestPageObeysAndTheLimitIsHeld(t *testing.T) {
	p, v := visit(t, "-nodes", "3", "-rate", "50", "-burst", "20")
	s := v.waitFor("the load, the owners and their standbys", func(s pageState) bool {
		return s.Judged > 1 && s.Held && s.Keys[0].Owner != "" && s.Keys[0].Standby != ""
	})
	assert.Len(t, s.Nodes, 3)
	assert.Len(t, s.Arcs, arcCount)
	assert.NotEqual(t, s.Keys[0].Owner, s.Keys[0].Standby)
	for _, c := range []struct{ command, why string }{
		{`{"do":"dance"}`, `do is "dance"`},
		{`{"do":"kill","node":"node-9"}`, `node is "node-9"`},
		{`{"do":"wake","node":"node-1"}`, `node is "node-1", which is not frozen`},
		{`{"do":"heal"}`, "not split"},
		{`{"do":"limit","rate":-1,"burst":5}`, "rate is -1"},
		{`{"do":"limit","rate":10,"burst":0}`, "burst is 0"},
		{`{"do":"load","load":11}`, "load is 11"},
	} {
		status, why := v.do(c.command)
		assert.Equal(t, http.StatusConflict, status, c.command)
		assert.Contains(t, why, c.why)
	}
	status, _ := v.do("kill them all")
	assert.Equal(t, http.StatusBadRequest, status)

	done := func(command string) {
		status, why := v.do(command)
		require.Equal(t, http.StatusNoContent, status, "%s: %s", command, why)
	}
	agreed := func(what string) {
		v.waitFor(what, func(s pageState) bool {
			return strings.Contains(asText(s.Events), "after the "+what)
		})
	}
	owner := s.Keys[0].Owner
	done(`{"do":"freeze","node":"` + owner + `"}`)
	agreed("freeze of " + owner)
	done(`{"do":"wake","node":"` + owner + `"}`)
	v.waitFor("the sleeper", func(s pageState) bool { return stateOf(s, owner) == "running" })
	agreed("wake-up of " + owner)
	done(`{"do":"split"}`)
	_, why := v.do(`{"do":"start"}`)
	assert.Contains(t, why, "heal it before")
	v.waitFor("the split", func(s pageState) bool {
		return s.Split && len(s.Points) > 0 && s.Points[len(s.Points)-1].Origins["standby"] > 0
	})
	done(`{"do":"heal"}`)
	agreed("split of ")
	done(`{"do":"limit","rate":30,"burst":10}`)
	done(`{"do":"start"}`)
	agreed("start of node-4")
	s = v.waitFor("what the new limit does", func(s pageState) bool { return s.Rate == 30 && s.Judged > s.Now-2 && stateOf(s, "node-4") == "running" })
	assert.True(t, s.Held, "%+v", s.Problems)

	require.NoError(t, p.Process.Signal(os.Interrupt))
	assert.Equal(t, exitInterrupted, p.finish())
	assert.Equal(t, 2, strings.Count(p.output.String(), "\nHELD    No window of any key"))
}

func stateOf(s pageState, node string) string {
	for _, n := range s.Nodes {
		if n.Name == node {
			return n.State
		}
	}
	return ""
}

func asText(events []pageEvent) string {
	var b strings.Builder
	for _, e := range events {
		b.WriteString(e.Text + "\n")
	}
	return b.String()
}

// A page of another site cannot press buttons, and finds nothing under a name of its own.
func TestPageIsOnlyForThisMachine(t *testing.T) {
	_, v := visit(t, "-nodes", "1")
	request := func(method, path string, header, value string) int {
		r, err := http.NewRequest(method, v.page+path, strings.NewReader(`{"do":"start"}`))
		require.NoError(t, err)
		if header == "Host" {
			r.Host = value
		} else {
			r.Header.Set(header, value)
		}
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer response.Body.Close()
		assert.Contains(t, response.Header.Get("Content-Security-Policy"), "default-src 'none'")
		return response.StatusCode
	}
	assert.Equal(t, http.StatusOK, request("GET", "/", "Host", "localhost:8090"))
	assert.Equal(t, http.StatusMisdirectedRequest, request("GET", "/", "Host", "evil.example:80"))
	assert.Equal(t, http.StatusForbidden, request("POST", "/do", "Origin", "http://evil.example"))
	assert.Equal(t, http.StatusNotFound, request("GET", "/../main.go", "Accept", "*/*"))
	for _, file := range []string{"/page.css", "/page.js", "/icon.svg", "/uplot/uPlot.iife.min.js", "/uplot/LICENSE"} {
		assert.Equal(t, http.StatusOK, request("GET", file, "Accept", "*/*"), file)
	}
}
