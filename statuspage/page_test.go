package statuspage_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	_ "github.com/peerlimit/peerlimit/internal/onecore"
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

// asJSON decodes what who asks for JSON gets.
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
		require.Contains(t, body, "Not all is well")
		require.Contains(t, body, "There is no connection to "+gone)
		cluster.Kill(1)
		time.Sleep(2 * time.Second)
		report := asJSON(t, page, "/")
		require.Equal(t, false, report["healthy"])
		require.Contains(t, report["findings"].([]any)[0], "hears from no majority")
		require.Contains(t, report["findings"].([]any)[0], "1 of 3")
	})
}

// Who was denied asks why: what the limit is, what is left of it, when there is more, and who decides.
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
			require.Equal(t, limiters[0].Placement("alice").Heir.Name, question["heir"])
			require.Equal(t, false, question["allowed"])
			require.InDelta(t, 1000, question["retry_after_ms"], 100)
			require.Equal(t, "60 per 1m0s, burst 2", question["limit"])
		}
		body := get(page, "/?limiter=api&key=alice", browser).Body.String()
		require.Contains(t, body, "Takes are denied.")
		require.Regexp(t, `\n0(\.0\d)? tokens are left of`, body)
		require.Regexp(t, `The next one is there in (1s|9\d\dms)\.`, body)
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
