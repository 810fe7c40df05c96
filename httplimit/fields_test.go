package httplimit

import (
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlimit/peerlimit"
)

func TestStackedPoliciesAreOneField(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		user := Options{Name: "per-user", LegacyFields: true}
		everyone := Options{Name: "everyone", LegacyFields: true}
		handler := limited(t, bucket(t, peerlimit.PerMinute(2)), user, limited(t, bucket(t, peerlimit.PerSecond(10).WithBurst(20)), everyone, ok))

		w := get(handler)
		assert.Equal(t, []string{`"per-user";q=2;w=60, "everyone";q=10;w=1`}, w.Header().Values("RateLimit-Policy"))
		assert.Equal(t, []string{`"per-user";r=1;t=30, "everyone";r=19;t=1`}, w.Header().Values("RateLimit"))
		assert.Equal(t, []string{"2"}, w.Header().Values("X-RateLimit-Limit"))
		assert.Equal(t, []string{"1"}, w.Header().Values("X-RateLimit-Remaining"))
		assert.Equal(t, []string{strconv.FormatInt(time.Now().Unix()+30, 10)}, w.Header().Values("X-RateLimit-Reset"))

		get(handler)
		w = get(handler)
		assert.Equal(t, http.StatusTooManyRequests, w.Code)
		assert.Equal(t, []string{"30"}, w.Header().Values("Retry-After"))
		assert.Equal(t, []string{`"per-user";r=0;t=30`}, w.Header().Values("RateLimit"))
		assert.Contains(t, w.Body.String(), `["per-user"]`)
	})
}

// The inner one denies: the answer tells of both, and says when to come back once.
func TestAStackedPolicyDenies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer := Options{Name: "outer", LegacyFields: true}
		inner := Options{Name: "inner", LegacyFields: true}
		handler := limited(t, bucket(t, peerlimit.PerMinute(2)), outer, limited(t, bucket(t, peerlimit.PerHour(1)), inner, ok))
		get(handler)
		w := get(handler)
		assert.Equal(t, http.StatusTooManyRequests, w.Code)
		assert.Equal(t, []string{`"outer";r=0;t=60, "inner";r=0;t=3600`}, w.Header().Values("RateLimit"))
		assert.Equal(t, []string{"3600"}, w.Header().Values("Retry-After"))
		assert.Equal(t, []string{"1"}, w.Header().Values("X-RateLimit-Limit"), "of the one that denies")
		assert.Contains(t, w.Body.String(), `["inner"]`)
	})
}

func TestTheSamePolicyTwiceIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		middleware, err := New(bucket(t, peerlimit.PerMinute(60)), Options{Name: "api"})
		require.NoError(t, err)
		w := get(middleware(middleware(ok)))
		assert.Equal(t, []string{`"api";q=60;w=60`}, w.Header().Values("RateLimit-Policy"))
		assert.Equal(t, []string{`"api";r=58;t=2`}, w.Header().Values("RateLimit"))
	})
}

// What others have written stays when it is a list, in whatever lines, and goes when it is none.
func TestFieldsOfOthers(t *testing.T) {
	for _, c := range []struct{ before, after []string }{
		{[]string{`"x";q=1`, `"y";q=2;w=3`}, []string{`"x";q=1, "y";q=2;w=3, "api";q=60;w=60`}},
		{[]string{`"api";q=1, "x";q=1, "api";q=2`}, []string{`"api";q=60;w=60, "x";q=1`}},
		{[]string{`api;q=1, ("api");q=1, :YXBp:`}, []string{`api;q=1, ("api");q=1, :YXBp:, "api";q=60;w=60`}},
		{[]string{`limit=10, remaining=5`}, []string{`"api";q=60;w=60`}},
		{[]string{`"unfinished`}, []string{`"api";q=60;w=60`}},
		{[]string{``}, []string{`"api";q=60;w=60`}},
	} {
		w := httptest.NewRecorder()
		w.Header()["Ratelimit-Policy"] = c.before
		limited(t, bucket(t, peerlimit.PerMinute(60)), Options{Name: "api"}, ok).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		assert.Equal(t, c.after, w.Header().Values("RateLimit-Policy"))
	}
}

func TestFieldsCanBeLeftOut(t *testing.T) {
	handler := limited(t, bucket(t, peerlimit.PerHour(1)), Options{Name: "login", NoRateLimitFields: true}, ok)
	assert.Empty(t, get(handler).Header().Values("RateLimit"))
	w := get(handler)
	assert.Empty(t, w.Header().Values("RateLimit"))
	assert.Empty(t, w.Header().Values("RateLimit-Policy"))
	assert.Empty(t, w.Header().Values("X-RateLimit-Limit"))
	assert.Equal(t, "3600", w.Header().Get("Retry-After"))
}

func TestNamesAndUnitsAreQuoted(t *testing.T) {
	handler := limited(t, bucket(t, peerlimit.PerHour(1000)), Options{Name: `a "b" \`, Unit: "content-bytes"}, ok)
	w := get(handler)
	assert.Equal(t, `"a \"b\" \\";q=1000;qu="content-bytes";w=3600`, w.Header().Get("RateLimit-Policy"))
	assert.Equal(t, `"a \"b\" \\";r=999;t=4`, w.Header().Get("RateLimit"))
}

func TestQuotas(t *testing.T) {
	for _, c := range []struct {
		limit         peerlimit.Limit
		quota, window int64
	}{
		{peerlimit.PerSecond(10).WithBurst(20), 10, 1},
		{peerlimit.PerMinute(100).WithBurst(20), 100, 60},
		{peerlimit.PerHour(1), 1, 3600},
		{peerlimit.PerHour(0.5), 1, 7200},
		{peerlimit.PerSecond(0.1), 1, 10},
		{peerlimit.PerSecond(2.5), 5, 2},
		{peerlimit.PerSecond(1.0 / 3), 1, 3},
		{peerlimit.PerMinute(1000.0 / 3), 1000, 180},
		{peerlimit.Per(5, 500*time.Millisecond), 10, 1},
		{peerlimit.Per(1, 1500*time.Millisecond), 4, 6},
		{peerlimit.Per(100, 90*time.Second), 100, 90},
		{peerlimit.PerSecond(math.Pi), 31, 10},
		{peerlimit.PerSecond(1e300), maxInteger, 1},
		{peerlimit.Per(1, math.MaxInt64), 1, 9_223_372_037},
	} {
		quota, window := quotaOf(c.limit)
		assert.Equal(t, c.quota, quota, c.limit)
		assert.Equal(t, c.window, window, c.limit)
	}
}

// Whatever the limit and the decision: numbers of the right kind, nothing promised that is not there, and Retry-After not
// before the time at which there is more.
func TestFieldsAreValidAndOnTheSafeSide(t *testing.T) {
	number := rapid.OneOf(rapid.Float64Range(0, 1e4), rapid.Float64Min(0))
	rapid.Check(t, func(t *rapid.T) {
		limit := peerlimit.Limit{
			Tokens: number.Draw(t, "tokens"), Burst: number.Draw(t, "burst"),
			Period: time.Duration(rapid.Int64Min(1).Draw(t, "period")),
		}
		if limit.Validate() != nil {
			t.Skip("no limit")
		}
		d := peerlimit.Decision{
			Allowed: rapid.Bool().Draw(t, "allowed"), Limit: limit, Remaining: number.Draw(t, "remaining"),
			ResetAfter: time.Duration(rapid.Int64Min(0).Draw(t, "reset")),
		}
		if !d.Allowed {
			d.RetryAfter = time.Duration(rapid.Int64Min(0).Draw(t, "retry"))
		}
		w := get(limited(t, answering(d), Options{Name: "api", LegacyFields: true}, ok))
		value := func(field, parameter string) int64 {
			list, err := httpsfv.UnmarshalList(w.Header().Values(field))
			require.NoError(t, err)
			require.Len(t, list, 1)
			v, has := list[0].(httpsfv.Item).Params.Get(parameter)
			require.True(t, has)
			require.GreaterOrEqual(t, v.(int64), int64(0))
			return v.(int64)
		}
		quota, window := value("RateLimit-Policy", "q"), value("RateLimit-Policy", "w")
		require.Positive(t, window)
		require.LessOrEqual(t, float64(quota)/float64(window), limit.Tokens/limit.Period.Seconds()*(1+1e-8))
		require.LessOrEqual(t, float64(value("RateLimit", "r")), d.Remaining)
		reset := value("RateLimit", "t")
		if d.Allowed {
			require.Equal(t, http.StatusOK, w.Code)
			require.Empty(t, w.Header().Values("Retry-After"))
			return
		}
		retry, err := strconv.ParseInt(w.Header().Get("Retry-After"), 10, 64)
		require.NoError(t, err)
		require.GreaterOrEqual(t, float64(retry), d.RetryAfter.Seconds())
		require.GreaterOrEqual(t, retry, max(1, reset))
	})
}

func TestSecondsAreRoundedUp(t *testing.T) {
	for wait, seconds := range map[time.Duration]int64{
		-time.Second:                0,
		0:                           0,
		1:                           1,
		time.Second:                 1,
		time.Second + 1:             2,
		90 * time.Second:            90,
		math.MaxInt64:               9_223_372_037,
		math.MaxInt64 - time.Second: 9_223_372_036,
	} {
		assert.Equal(t, seconds, wholeSeconds(wait), wait)
	}
}

// Whatever others have written, there is one valid list with this policy in it.
func FuzzFieldsOfOthers(f *testing.F) {
	for _, line := range []string{"", `"api";q=1`, `"x";q=1, ("y" 2.5);a=?1, :YXBp:, @17, %"%c3"`, `limit=10`, `"`, `-`, `1;`, `a=`} {
		f.Add(line, line)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		h := http.Header{fieldPolicy: {first, second}}
		mergeItem(h, fieldPolicy, httpsfv.NewItem("api"))
		require.Len(t, h[fieldPolicy], 1)
		list, err := httpsfv.UnmarshalList(h[fieldPolicy])
		require.NoError(t, err)
		found := 0
		for _, member := range list {
			if item, is := member.(httpsfv.Item); is && item.Value == "api" {
				found++
			}
		}
		require.Equal(t, 1, found)
	})
}
