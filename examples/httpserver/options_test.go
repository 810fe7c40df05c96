package main

import (
	"bytes"
	"context"
	"flag"
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
)

func TestOptions(t *testing.T) {
	defaults := options{addr: ":8080", limit: peerlimit.PerSecond(10).WithBurst(20)}
	opts, err := parseOptions(nil)
	require.NoError(t, err)
	assert.Equal(t, defaults, opts)

	opts, err = parseOptions([]string{
		"-addr", "127.0.0.1:0", "-rate", "2.5", "-burst", "7", "-bind", "10.0.0.1:7946",
		"-join", "10.0.0.2:7946, seeds.example", "-insecure", "-expect", "3", "-secret-file", "/run/secret",
		"-accept-secret-file", "/run/next", "-accept-secret-file", "/run/old",
	})
	require.NoError(t, err)
	assert.Equal(t, options{
		addr: "127.0.0.1:0", limit: peerlimit.PerSecond(2.5).WithBurst(7), bind: "10.0.0.1:7946",
		join: []string{"10.0.0.2:7946", "seeds.example"}, insecure: true,
		expect: 3, secretFile: "/run/secret", accept: []string{"/run/next", "/run/old"},
	}, opts)

	opts, err = parseOptions([]string{"-join", ""})
	require.NoError(t, err)
	assert.Equal(t, defaults, opts)
}

func TestABadCommandLineIsRefusedByName(t *testing.T) {
	ended, end := context.WithCancel(t.Context()) // what is not refused starts, and ends at once
	end()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-rate", "many"}, `invalid value "many" for flag -rate`},
		{[]string{"-rate", "0"}, `-rate 0:`},
		{[]string{"-expect", "-1"}, `ExpectMembers is -1`},
		{[]string{"-secret-file", "no/such/file"}, `-secret-file: open no/such/file`},
		{[]string{"-secret-file", "options.go", "-accept-secret-file", "no/such/file"}, `-accept-secret-file: open no/such/file`},
		{[]string{"-secret-file", os.DevNull}, `0 bytes of Secret`},
		{[]string{"-rate", "-3"}, `-rate -3:`},
		{[]string{"-rate", "NaN"}, `-rate NaN:`},
		{[]string{"-rate", "Inf"}, `-rate +Inf:`},
		{[]string{"-rate", "1e-20"}, `-rate 1e-20:`},
		{[]string{"-burst", "0"}, `-burst 0:`},
		{[]string{"-burst", "0.5"}, `-burst 0.5:`},
		{[]string{"-burst", "NaN"}, `-burst NaN:`},
		{[]string{"-burst", "Inf"}, `-burst +Inf:`},
		{[]string{"-addr", ""}, `-addr "":`},
		{[]string{"-addr", "8080"}, `-addr "8080":`},
		{[]string{"-addr", ":99999"}, `-addr ":99999":`},
		{[]string{"-status", "8080"}, `-status "8080":`},
		{[]string{"-insecure=perhaps"}, `invalid boolean value "perhaps" for -insecure`},
		{[]string{"-colour"}, `-colour`},
		{[]string{"extra"}, `"extra"`},
		{[]string{"-bind", "0.0.0.0:0"}, `-bind "0.0.0.0:0"`},
		{[]string{"-bind", "127.0.0.1:none"}, `-bind "127.0.0.1:none"`},
		{[]string{"-join", "10.0.0.1:7946,,"}, `-join ["10.0.0.1:7946" "" ""]`},
	} {
		var out bytes.Buffer
		err := run(ended, append([]string{"-addr", "127.0.0.1:0"}, c.args...), &out)
		require.ErrorIs(t, err, errBadFlag, "%q", c.args)
		assert.ErrorContains(t, err, c.want)
		assert.Empty(t, out.String())
	}
}

func TestHelpIsNoError(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-h"}, &out))
	flags, _ := newFlags()
	flags.VisitAll(func(f *flag.Flag) { assert.Contains(t, out.String(), "\n  -"+f.Name) })
}

func TestAnAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	addr := taken.Addr().String()
	ended, end := context.WithCancel(t.Context())
	end()
	var out bytes.Buffer
	for _, flagName := range []string{"-addr", "-bind", "-status"} {
		args := []string{"-addr", "127.0.0.1:0", flagName, addr}
		err := run(ended, args, &out)
		assert.ErrorContains(t, err, flagName+` "`+addr+`"`)
		assert.ErrorContains(t, err, "address already in use")
		assert.NotErrorIs(t, err, errBadFlag)
	}
	assert.Empty(t, out.String())
}

func TestBaseURL(t *testing.T) {
	for addr, url := range map[string]string{
		"0.0.0.0:8080":   "http://localhost:8080",
		"[::]:8080":      "http://localhost:8080",
		"127.0.0.1:8080": "http://127.0.0.1:8080",
		"[::1]:8080":     "http://[::1]:8080",
	} {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		require.NoError(t, err)
		assert.Equal(t, url, baseURL(tcp))
	}
}
