package peerlimit

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/fallback"
	"github.com/peerlimit/peerlimit/internal/secret"
	"github.com/peerlimit/peerlimit/transport"
)

// Secrets for these tests, without two bytes that would look like something else.
var (
	printedSecret   = []byte("b\x91kQ7\xe3w-Zd\xf1\x88pR4\xcbmX\xa6yT9\xd7gV\xb2hU5\xc4jS\x9f")
	acceptedSecret  = []byte("n\xa1cW8\xf2q-Ye\x93\x84tP6\xdbkH\xb7uF3\xe8sG\xc5vD2\x97zA\xad")
	acceptedSecret2 = []byte("r\xb3fB1\x95x-Kg\xe4\x99wM0\xfaoJ\xd9iL4\xa7lN\xb6yC8\xc2tE\x8d")
)

// traces returns what a part of a secret looks like in each form in which it could be written.
func traces(secret []byte) (forms []string) {
	for i := 0; i+4 <= len(secret); i += 3 {
		part := secret[i : i+4]
		for _, verb := range []string{"%s", "%v", "%o", "%b", "%x", "%X", "% x", "%#x", "%# x", "%#o", "%c", "%q", "%U", "%#v", "%03d", "%+d", "% d", "%+q", "%#q"} {
			forms = append(forms, strings.Trim(fmt.Sprintf(verb, part), "[]"), strings.Trim(fmt.Sprintf(verb, string(part)), "\"`"))
		}
		forms = append(forms, strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}"))
		if i+6 <= len(secret) {
			forms = append(forms, base64.StdEncoding.EncodeToString(secret[i:i+6]))
		}
	}
	return slices.DeleteFunc(forms, func(form string) bool { return strings.Contains(form, "%!") })
}

// requireNoTrace fails when a text has one of the traces.
func requireNoTrace(t *testing.T, text, how string, traces []string) {
	t.Helper()
	for _, form := range traces {
		if strings.Contains(text, form) {
			require.Failf(t, "part of a secret is told", "%s: %q is in %q", how, form, text)
		}
	}
}

// tracesOf returns the traces of several secrets.
func tracesOf(secrets ...[]byte) (all []string) {
	for _, secret := range secrets {
		all = append(all, traces(secret)...)
	}
	return all
}

// printings is a text of a value for each way of printing it.
func printings(value any) map[string]string {
	texts := make(map[string]string)
	for verb := 'A'; verb <= 'z'; verb++ {
		if verb == 'p' || verb == 'w' {
			continue // fmt asks no method about them, and vet refuses them for what is neither a pointer nor an error
		}
		for _, flags := range []string{"", "+", "#", " ", "09.3", "-"} {
			format := "%" + flags + string(verb)
			texts[format] = fmt.Sprintf(format, value)
		}
	}
	texts["Print"], texts["Println"] = fmt.Sprint(value), fmt.Sprintln(value)
	for name, handler := range map[string]func(io.Writer) slog.Handler{
		"text log": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
		"JSON log": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
	} {
		var log bytes.Buffer
		l := slog.New(handler(&log))
		l.Info("x", "value", value)
		l.With("value", value).WithGroup("g").Info("x", slog.Group("h", slog.Any("value", []any{value})))
		texts[name] = log.String()
	}
	encoded, err := json.Marshal(value)
	texts["JSON"] = fmt.Sprint(string(encoded), err)
	var b strings.Builder
	if err := template.Must(template.New("").Parse("{{.}}")).Execute(&b, value); err != nil {
		b.WriteString(err.Error())
	}
	texts["template"] = b.String()
	if s, ok := value.(fmt.Stringer); ok {
		texts["String"] = s.String()
	}
	if s, ok := value.(fmt.GoStringer); ok {
		texts["GoString"] = s.GoString()
	}
	return texts
}

// fullConfig has all fields set.
func fullConfig() Config {
	return Config{
		Cluster: "orders\x1b[31m", Name: "api-1", BindAddr: "127.0.0.1:0", AdvertiseAddr: "127.0.0.1", RPCAddr: "127.0.0.1:0",
		Join: []string{"api-gossip", "10.0.0.7"}, ExpectMembers: 3, Secret: printedSecret, AcceptSecrets: [][]byte{acceptedSecret, acceptedSecret2},
		TLS: &tls.Config{ServerName: "api", SessionTicketKey: [32]byte(printedSecret)}, Insecure: true, Fallback: fallback.Closed, // #nosec G402
		RPCTimeout: 70 * time.Millisecond, ReplicaInterval: -1, MaxWait: time.Second, OutvoteAfter: -1, SplitMemory: time.Hour, NoLeases: true, NoDenialCache: true,
		MaxKeys: 4711, Logger: slog.New(slog.DiscardHandler), OnEvent: func(Event) {}, Network: transport.TCP{}, Memberlist: func(*memberlist.Config) {},
	}
}

// However a Config is printed or logged, its secrets are not in it. What methods fmt does not call, those of fields that
// are not exported, is left to pointers.
func TestAConfigIsPrintedWithoutItsSecrets(t *testing.T) {
	config := fullConfig()
	value := reflect.ValueOf(config)
	for i := range value.NumField() {
		if !value.Type().Field(i).IsExported() {
			continue // of tests
		}
		require.False(t, value.Field(i).IsZero(), "%s is not set", value.Type().Field(i).Name)
	}
	type embedded struct {
		Config
		Other string
	}
	type service struct {
		Config  Config
		Pointer *Config
		Any     any
		List    []Config
		Map     map[string]Config
	}
	checked := &settings{Config: config}
	secrets := tracesOf(printedSecret, acceptedSecret, acceptedSecret2)
	for name, value := range map[string]any{
		"a Config": config, "a pointer": &config, "embedded": embedded{config, "x"}, "embedded pointer": &embedded{config, "x"},
		"a struct": service{config, &config, config, []Config{config}, map[string]Config{"x": config}},
		"a slice":  []Config{config}, "pointers": []*Config{&config}, "a map": map[string]Config{"x": config}, "an any": []any{config, &config},
		"settings": checked, "settings themselves": *checked, "an error": fmt.Errorf("%v", config),
	} {
		for how, text := range printings(value) {
			requireNoTrace(t, text, name+", "+how, secrets)
			require.NotContains(t, text, "\x1b", "%s, %s", name, how)
		}
	}
}

// What is printed is enough to see how a node was meant to be.
func TestWhatAConfigLooksLike(t *testing.T) {
	want := `peerlimit.Config{Cluster:"orders\x1b[31m", Name:"api-1", BindAddr:"127.0.0.1:0", AdvertiseAddr:"127.0.0.1", RPCAddr:"127.0.0.1:0", ` +
		`Join:["api-gossip" "10.0.0.7"], ExpectMembers:3, Secret:(33 bytes), AcceptSecrets:(2 secrets), TLS:(set), Insecure:true, Fallback:(set), ` +
		`RPCTimeout:70ms, ReplicaInterval:-1ns, MaxWait:1s, OutvoteAfter:-1ns, SplitMemory:1h0m0s, NoLeases:true, NoDenialCache:true, MaxKeys:4711, Logger:(set), ` +
		`OnEvent:(set), Network:(set), Memberlist:(set)}`
	texts := printings(fullConfig())
	for _, how := range []string{"%v", "%+v", "%#v", "%s", "%d", "Print", "template", "String", "GoString"} {
		assert.Equal(t, want, texts[how], how)
	}
	assert.Equal(t, fmt.Sprintf("%q", want), texts["%q"])
	assert.Equal(t, fmt.Sprintf("%x", want), texts["%x"])
	assert.Contains(t, texts["text log"], `value.Cluster="orders\x1b[31m" value.Name=api-1 `)
	assert.Contains(t, texts["text log"], ` value.ExpectMembers=3 value.Secret="(33 bytes)" value.AcceptSecrets="(2 secrets)" value.TLS=(set) `)
	assert.Contains(t, texts["JSON log"], `"Join":["api-gossip","10.0.0.7"],"ExpectMembers":3,"Secret":"(33 bytes)"`)
	assert.Equal(t, "peerlimit.Config{}", fmt.Sprint(Config{}))
	assert.Equal(t, "<nil>", fmt.Sprint((*Config)(nil)))
	assert.Contains(t, texts["JSON"], "json: unsupported type: func") // encoding/json gives up, and prints nothing of it
}

// Neither is anything of them in a node, of which people print what they get; nor are the keys that were derived.
func TestANodeIsPrintedWithoutItsSecrets(t *testing.T) {
	node, err := Start(Config{Name: "api-1", Secret: printedSecret, AcceptSecrets: [][]byte{acceptedSecret}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer node.Close()
	limiter, err := node.Limiter("api", PerSecond(1))
	require.NoError(t, err)
	keys, err := secret.Derive(DefaultCluster, printedSecret)
	require.NoError(t, err)
	secrets := tracesOf(printedSecret, acceptedSecret, keys.Gossip, keys.Takes.Seed())
	for name, value := range map[string]any{
		"a node": node, "in a struct": struct{ Node *Node }{node}, "a slice": []*Node{node}, "its keys": keys, "the keys themselves": *keys,
		"one that was not started": struct{ node *Node }{&Node{settings: node.settings}}, // of one that was, fmt would read what changes
	} {
		for how, text := range printings(value) {
			requireNoTrace(t, text, name+", "+how, secrets)
		}
	}
	for name, value := range map[string]any{"in a hidden field": struct{ node *Node }{node}, "a limiter": limiter, "its encryption": node.settings.encryption} {
		for _, how := range []string{"%v", "%+v", "%#v", "%x", "%d"} {
			requireNoTrace(t, fmt.Sprintf(how, value), name+", "+how, secrets)
		}
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		assert.Equal(t, "peerlimit.Node("+node.Self().Name+")", fmt.Sprintf(format, node))
	}
	kind := reflect.TypeOf(node).Elem()
	for _, field := range reflect.VisibleFields(kind) {
		assert.False(t, field.IsExported(), "node.%s can be read by all that have the node", field.Name)
	}
}

// SplitMemory alone may be set to anything: what is not set does not contradict it.
func TestOutvoteAfterDefaultsToNoMoreThanSplitMemory(t *testing.T) {
	for _, c := range []struct{ outvote, split, wantOutvote, wantSplit time.Duration }{
		{0, 0, time.Minute, time.Hour},
		{0, 2 * time.Minute, time.Minute, 2 * time.Minute},
		{0, 10 * time.Second, 10 * time.Second, 10 * time.Second},
		{0, time.Millisecond, time.Millisecond, time.Millisecond},
		{time.Second, time.Second, time.Second, time.Second},
		{time.Hour, 0, time.Hour, time.Hour},
		{-1, time.Millisecond, -1, time.Millisecond},
	} {
		s, err := Config{OutvoteAfter: c.outvote, SplitMemory: c.split}.resolve()
		require.NoError(t, err, "%+v", c)
		assert.Equal(t, c.wantOutvote, s.OutvoteAfter, "%+v", c)
		assert.Equal(t, c.wantSplit, s.SplitMemory, "%+v", c)
	}
}
