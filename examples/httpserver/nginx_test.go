package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Three instances behind nginx, which asks them in turn, with wrk as a client that takes what it can get, hold one limit.
func TestBehindNginx(t *testing.T) {
	for _, program := range []string{"nginx", "wrk"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: apt-get install nginx-light wrk", program)
		}
	}
	const rate, burst, seconds = 50, 100, 4
	program := build(t)
	limit := []string{"-addr", "127.0.0.1:0", "-rate", strconv.Itoa(rate), "-burst", strconv.Itoa(burst), "-expect", "3"}
	instances := []*process{launch(t, program, limit...)}
	seed := instances[0].out.await(t, joinLine)
	for range 2 {
		instances = append(instances, launch(t, program, append(limit, "-join", seed)...))
	}
	var upstream strings.Builder
	for _, p := range instances {
		url := p.out.await(t, urlLine)
		fmt.Fprintf(&upstream, "server %s;", strings.TrimPrefix(url, "http://"))
		p.out.await(t, `owners of partitions changed.*3 members .*\n`)
		p.out.await(t, `(?s)connected to member.*connected to member`)
	}
	front := startNginx(t, upstream.String())

	began := time.Now()
	text, err := exec.Command("wrk", "-t1", "-c32", fmt.Sprintf("-d%ds", seconds), front+"/token").CombinedOutput()
	took := time.Since(began)
	require.NoError(t, err, "%s", text)
	all := counted(t, string(text), `(\d+) requests in`)
	denied := counted(t, string(text), `Non-2xx or 3xx responses: (\d+)`)
	t.Logf("%d of %d requests in %v were admitted", all-denied, all, took)
	assert.NotContains(t, string(text), "Socket errors")
	admitted := float64(all - denied)
	for _, p := range instances {
		if strings.Contains(p.out.String(), "fallback began") {
			t.Skip("this machine stood still for longer than the RPC timeout, and shares were given out")
		}
	}
	assert.LessOrEqual(t, admitted, burst+rate*took.Seconds())
	assert.GreaterOrEqual(t, admitted, burst+0.95*rate*seconds-32, "wrk does not count the requests that are under way when it ends")
}

// startNginx starts nginx in front of some servers, and returns its URL.
func startNginx(t *testing.T, upstream string) string {
	place := t.TempDir()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())
	config := filepath.Join(place, "nginx.conf")
	require.NoError(t, os.WriteFile(config, []byte(fmt.Sprintf(`
daemon off; master_process off; worker_processes 1; pid %[1]s/pid; error_log stderr warn;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	upstream service { %[2]s keepalive 32; }
	server {
		listen %[3]s;
		location / { proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection ""; }
	}
}
`, place, upstream, address)), 0o600))
	nginx := launch(t, "nginx", "-c", config, "-p", place)
	deadline := time.Now().Add(hangs)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return "http://" + address
		}
		require.True(t, time.Now().Before(deadline), "nginx does not listen: %s", nginx.out)
		time.Sleep(10 * time.Millisecond)
	}
}

// counted returns the number that a pattern finds; 0 when it finds none.
func counted(t *testing.T, text, pattern string) int {
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if match == nil {
		return 0
	}
	n, err := strconv.Atoi(match[1])
	require.NoError(t, err)
	return n
}
