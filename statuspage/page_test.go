package statuspage_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	_ "github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/internal/sim"
	"github.com/peerlimit/peerlimit/peerlimittest"
	"github.com/peerlimit/peerlimit/statuspage"
)

// inCluster runs a test with three nodes and the page of the first one.
func inCluster(t *testing.T, o statuspage.Options, test func(t *testing.T, cluster *peerlimittest.Cluster, page *statuspage.Page)) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		page, err := statuspage.New(cluster.Node(0), o)
		require.NoError(t, err)
		defer page.Close()
		test(t, cluster, page)
	})
}

func get(page http.Handler, url, accept string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, url, nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	page.ServeHTTP(w, r)
	return w
}

// asJSON decodes what a client that asks for JSON gets.
func asJSON(t *testing.T, page http.Handler, url string) map[string]any {
	w := get(page, url, "application/json")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var report map[string]any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &report))
	return report
}

const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

func TestAHealthyClusterIsSaidToBe(t *testing.T) {
	inCluster(t, statuspage.Options{}, func(t *testing.T, cluster *peerlimittest.Cluster, page *statuspage.Page) {
		time.Sleep(time.Second)
		w := get(page, "/", browser)
		require.Equal(t, http.StatusOK, w.Code)
		require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
		body := w.Body.String()
		require.Contains(t, body, "Healthy")
		require.Contains(t, body, "3 members are there")
		for i := range 3 {
			require.Contains(t, body, cluster.Node(i).Self().Name)
			require.Contains(t, body, cluster.Node(i).Self().RPCAddr)
		}
		require.Contains(t, body, "ring changed", "recent events")
		report := asJSON(t, page, "/")
		require.Equal(t, true, report["healthy"])
		owned := 0.0
		for _, m := range report["members"].([]any) {
			m := m.(map[string]any)
			owned += m["partitions"].(float64)
			if m["self"] == nil {
				require.Equal(t, "up", m["link"])
				require.Less(t, m["evidence_ms"], 500.0)
			}
		}
		require.Equal(t, 4093.0, owned)
	})
}

func TestWhatIsNotWellIsSaid(t *testing.T) {
	inCluster(t, statuspage.Options{}, func(t *testing.T, cluster *peerlimittest.Cluster, page *statuspage.Page) {
		gone := cluster.Node(2).Self().Name
		cluster.Kill(2)
		time.Sleep(time.Second)
		body := get(page, "/", browser).Body.String()
		require.Contains(t, body, "Needs attention: ")
		require.Contains(t, body, "There is no connection to "+gone)
		cluster.Kill(1)
		time.Sleep(2 * time.Second)
		report := asJSON(t, page, "/")
		require.Equal(t, false, report["healthy"])
		require.Contains(t, report["findings"].([]any)[0], "No majority")
		require.Contains(t, report["findings"].([]any)[0], "1/3.")
	})
}

// Why a seed is not joined is said on top, with what was found, and nothing of it is there when all are.
func TestASeedThatWasNotJoinedIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		defer network.Close()
		listener, err := network.Host("10.0.0.1").Listen("10.0.0.1:7946")
		require.NoError(t, err)
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 1000))
				_, _ = conn.Write([]byte("\x7f\x1b[2J<script>"))
				_ = conn.Close()
			}
		}()
		node, err := peerlimit.Start(peerlimit.Config{
			BindAddr: "10.0.0.2", Insecure: true, Network: network.Host("10.0.0.2"), Join: []string{"10.0.0.2", "10.0.0.1"}, Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		page, err := statuspage.New(node, statuspage.Options{})
		require.NoError(t, err)
		body := get(page, "/", browser).Body.String()
		require.Contains(t, body, "Needs attention: ")
		require.Contains(t, body, "Seed 10.0.0.1 was not joined, because it answers as no peerlimit node does: Config.Join must name")
		require.NotContains(t, body, "Seed 10.0.0.2", "which is this node")
		requirePrints(t, body)
		require.NotContains(t, body, "<script>alert")
		report := asJSON(t, page, "/")
		require.Equal(t, false, report["healthy"])
		seeds := report["seeds"].([]any)
		require.Equal(t, map[string]any{"seed": "10.0.0.2", "joined": true}, seeds[0])
		require.Equal(t, false, seeds[1].(map[string]any)["joined"])
		require.Contains(t, seeds[1].(map[string]any)["reason"], "no peerlimit node")
		require.Contains(t, seeds[1].(map[string]any)["err"], `\x1b[2J`)
		for _, text := range stringsIn(report) {
			requirePrints(t, text)
		}
		require.NoError(t, listener.Close())
		require.NoError(t, node.Close())
	})
}

// A person whose key is denied asks why: which limit denies, what is available of it, when there is more, and which node decides.
func TestAKeyIsAskedAbout(t *testing.T) {
	inCluster(t, statuspage.Options{}, func(t *testing.T, cluster *peerlimittest.Cluster, page *statuspage.Page) {
		limiters := cluster.Limiters("api", peerlimit.PerMinute(60).WithBurst(2))
		for range 3 {
			_, err := limiters[1].Take(t.Context(), "alice", 1)
			require.NoError(t, err)
		}
		for range 2 { // asking takes nothing
			question := asJSON(t, page, "/?limiter=api&key=alice")["question"].(map[string]any)
			require.Equal(t, limiters[0].Owner("alice").Name, question["owner"])
			require.Equal(t, limiters[0].Placement("alice").Standbys[0].Name, question["standby"])
			require.Equal(t, false, question["allowed"])
			require.InDelta(t, 1000, question["retry_after_ms"], 100)
			require.Equal(t, "60 per 1m0s, burst 2", question["limit"])
		}
		body := get(page, "/?limiter=api&key=alice", browser).Body.String()
		require.Contains(t, body, "Takes are denied.")
		require.Regexp(t, `\n0(\.0\d)? tokens are available of`, body)
		require.Regexp(t, `The next token is available in (1s|9\d\dms)\.`, body)
		body = get(page, "/?limiter=api&key=bob", browser).Body.String()
		require.Contains(t, body, "A take would be allowed.")
		body = get(page, "/?limiter=none&key=bob", browser).Body.String()
		require.Contains(t, body, "This node has no limiter &#34;none&#34;.")
		body = get(page, "/?limiter=api&key=", browser).Body.String()
		require.Contains(t, body, "Nothing can be said")
	})
}

func takeOften(t *testing.T, l *peerlimit.Limiter, key string, times int) {
	for range times {
		_, err := l.Take(t.Context(), key, 1)
		require.NoError(t, err)
	}
}

func TestBusyKeysAreEstimated(t *testing.T) {
	inCluster(t, statuspage.Options{}, func(t *testing.T, cluster *peerlimittest.Cluster, page *statuspage.Page) {
		open := cluster.Limiters("open", peerlimit.PerSecond(1e6))[0]
		tight := cluster.Limiters("tight", peerlimit.PerHour(1))[0]
		for i := range 2000 {
			takeOften(t, open, fmt.Sprint("rare", i), 1)
		}
		takeOften(t, open, "often", 10_000)
		takeOften(t, tight, "refused", 5_000)
		time.Sleep(10 * time.Second)
		report := asJSON(t, page, "/")
		busiest := report["busiest_keys"].([]any)
		first, second := busiest[0].(map[string]any), busiest[1].(map[string]any)
		require.Equal(t, "often", first["key"])
		require.Equal(t, "open", first["limiter"])
		require.InEpsilon(t, 1000, first["per_second"], 0.4)
		require.Equal(t, "refused", second["key"])
		require.LessOrEqual(t, len(busiest), 10)
		denied := report["most_denied_keys"].([]any)
		require.Equal(t, "refused", denied[0].(map[string]any)["key"])
		require.Len(t, denied, 1)

		time.Sleep(3 * time.Minute)
		require.Empty(t, asJSON(t, page, "/")["busiest_keys"], "that was long ago")
		page.Close()
		takeOften(t, open, "often", 10_000)
		require.Empty(t, asJSON(t, page, "/")["busiest_keys"], "nothing is sampled any more")
	})
}

func TestKeysCanBeHidden(t *testing.T) {
	inCluster(t, statuspage.Options{HideKeys: true}, func(t *testing.T, cluster *peerlimittest.Cluster, page *statuspage.Page) {
		l := cluster.Limiters("open", peerlimit.PerSecond(1e6))[0]
		takeOften(t, l, "secret-of-alice", 10_000)
		require.NotContains(t, get(page, "/", browser).Body.String(), "alice")
		report := asJSON(t, page, "/")
		require.Regexp(t, "^[0-9a-f]{8}$", report["busiest_keys"].([]any)[0].(map[string]any)["key"])
	})
}

func TestWhatPeopleSentIsOnlyText(t *testing.T) {
	inCluster(t, statuspage.Options{}, func(t *testing.T, cluster *peerlimittest.Cluster, page *statuspage.Page) {
		evil := `"><script>alert(1)</script>` + "\xff"
		l := cluster.Limiters(evil, peerlimit.PerSecond(1e6))[0]
		takeOften(t, l, evil, 5_000)
		body := get(page, "/?limiter=%3Cscript%3Ealert(1)&key=%3Cscript%3Ealert(1)", browser).Body.String()
		require.NotContains(t, body, "<script>alert")
		require.Equal(t, 1, strings.Count(body, "<script>"), "the page's own")
		asJSON(t, page, "/")
	})
}

// hostileText would clear an operator's terminal, rename its window, run backwards, and hide part of itself.
const hostileText = "a\x1b[2J\x1b]0;x\a\r\nb\u009b31m\u202ec\u200b\u00a0\u2028\xff\x7f"

// requirePrints fails when a text has anything but line ends and tabs that does not print.
func requirePrints(t *testing.T, text string) {
	t.Helper()
	require.True(t, utf8.ValidString(text))
	for i, r := range text {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			require.Failf(t, "it does not print", "%q in %q", r, text[max(0, i-60):min(len(text), i+60)])
		}
	}
}

// stringsIn returns all strings in what was decoded from JSON, names of fields too.
func stringsIn(value any) (all []string) {
	switch value := value.(type) {
	case string:
		all = append(all, value)
	case []any:
		for _, v := range value {
			all = append(all, stringsIn(v)...)
		}
	case map[string]any:
		for name, v := range value {
			all = append(append(all, name), stringsIn(v)...)
		}
	}
	return all
}

// Keys are what clients send, and the person who asks about one may have been given a link. Whether an operator looks at the page with
// curl or at its JSON with jq, which decodes strings, nothing of it reaches the terminal but what prints.
func TestWhatDoesNotPrintIsShownEscaped(t *testing.T) {
	const shown = `a\x1b[2J\x1b]0;x\a\r\nb\u009b31m\u202ec\u200b\u00a0\u2028\xff\x7f`
	inCluster(t, statuspage.Options{}, func(t *testing.T, cluster *peerlimittest.Cluster, page *statuspage.Page) {
		l := cluster.Limiters("api"+hostileText, peerlimit.PerMinute(60).WithBurst(2))[0]
		takeOften(t, l, "key"+hostileText, 5_000)
		for _, query := range []url.Values{
			{}, {"limiter": {"api" + hostileText}, "key": {"key" + hostileText}}, {"limiter": {"none" + hostileText}, "key": {hostileText}},
			{"limiter": {"api" + shown}, "key": {"key" + hostileText}}, // as the page's own form asks
		} {
			body := get(page, "/?"+query.Encode(), browser).Body.String()
			requirePrints(t, body)
			require.Contains(t, body, "key"+shown, "the busiest key")
			require.Contains(t, body, "api"+shown)
			for _, text := range stringsIn(asJSON(t, page, "/?"+query.Encode())) {
				require.NotContains(t, text, "\n")
				requirePrints(t, text)
			}
			requirePrints(t, get(page, "/?"+query.Encode(), "application/json").Body.String())
		}
		for _, limiter := range []string{"api" + hostileText, "api" + shown} {
			report := asJSON(t, page, "/?"+url.Values{"limiter": {limiter}, "key": {"key" + hostileText}}.Encode())
			require.Equal(t, "key"+shown, report["question"].(map[string]any)["key"])
			require.Equal(t, "60 per 1m0s, burst 2", report["question"].(map[string]any)["limit"], "it is about that key")
			require.Less(t, report["question"].(map[string]any)["remaining"], 1.0)
			require.Contains(t, report["stats"].(map[string]any)["Limiters"], "api"+shown)
		}
		body := get(page, "/?"+url.Values{"limiter": {"api" + hostileText}, "key": {`C:\new`}}.Encode(), browser).Body.String()
		require.Contains(t, body, `value="C:\new"`, "what prints is in the form again")
		require.Contains(t, body, `<code>C:\new</code>`)
		require.NotContains(t, get(page, "/?key=%1b", browser).Body.String(), `value="\x1b"`, "which would be another key")
	})
}

// What is asked about is repeated as far as it can be a key, and no further.
func TestWhatIsAskedIsRepeatedBounded(t *testing.T) {
	inCluster(t, statuspage.Options{}, func(t *testing.T, cluster *peerlimittest.Cluster, page *statuspage.Page) {
		cluster.Limiters("api", peerlimit.PerMinute(60))
		plain := get(page, "/?limiter=api&key=a", browser).Body.Len()
		long := strings.Repeat("\x1b", 100_000)
		for _, limiter := range []string{"api", long} {
			query := "/?" + url.Values{"limiter": {limiter}, "key": {long}}.Encode()
			require.Less(t, get(page, query, browser).Body.Len(), plain+20_000)
			question := asJSON(t, page, query)["question"].(map[string]any)
			require.Equal(t, strings.Repeat(`\x1b`, peerlimit.MaxKeyLen)+"… (100000 bytes)", question["key"])
			require.Less(t, len(question["limiter"].(string)), 2_000)
			require.Less(t, len(question["fault"].(string)), 2_000)
		}
		valid := strings.Repeat("k", peerlimit.MaxKeyLen)
		require.Equal(t, valid, asJSON(t, page, "/?limiter=api&key="+valid)["question"].(map[string]any)["key"])
	})
}

// The policy lets a browser run the page's own script and style and nothing else, by what they hash to.
func TestPolicyFitsThePage(t *testing.T) {
	inCluster(t, statuspage.Options{}, func(t *testing.T, _ *peerlimittest.Cluster, page *statuspage.Page) {
		w := get(page, "/", browser)
		policy := w.Header().Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'")
		for _, element := range []string{"script", "style"} {
			inside := regexp.MustCompile(`(?s)<` + element + `>(.*?)</` + element + `>`).FindStringSubmatch(w.Body.String())
			require.NotNil(t, inside)
			sum := sha256.Sum256([]byte(inside[1]))
			require.Contains(t, policy, element+"-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
		}
		require.NotRegexp(t, `(?i)(src|href)="(https?:)?//`, w.Body.String(), "nothing comes from elsewhere")
	})
}

func TestOnlyLooking(t *testing.T) {
	inCluster(t, statuspage.Options{}, func(t *testing.T, _ *peerlimittest.Cluster, page *statuspage.Page) {
		w := httptest.NewRecorder()
		page.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
		require.Equal(t, http.StatusMethodNotAllowed, w.Code)
		require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
	})
	_, err := statuspage.New(nil, statuspage.Options{})
	require.ErrorIs(t, err, statuspage.ErrInvalid)
	require.EqualError(t, err, "statuspage: invalid page: node is nil")
}

func TestAccept(t *testing.T) {
	inCluster(t, statuspage.Options{}, func(t *testing.T, _ *peerlimittest.Cluster, page *statuspage.Page) {
		for accept, json := range map[string]bool{
			"": false, "*/*": false, browser: false, "text/html": false, "nonsense/": false, "application/json;q=0": false,
			"application/json": true, "application/json, */*;q=0.5": true, "application/json, text/plain, */*": true,
			"text/html;q=0.5, application/json": true, "text/html, application/json;q=0.9": false,
		} {
			got := strings.HasPrefix(get(page, "/", accept).Header().Get("Content-Type"), "application/json")
			require.Equal(t, json, got, accept)
		}
	})
}
