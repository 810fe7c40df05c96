package signup_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/examples/signup"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// An invitation that was used up stays used up, whichever instance is asked, and also when the one that knows so is killed.
func TestAnInvitationStaysUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		var instances []http.Handler
		for i := range cluster.Len() {
			handler, err := signup.NewHandler(cluster.Node(i))
			require.NoError(t, err)
			instances = append(instances, handler)
		}
		judge := peerlimittest.NewJudge(t, signup.Limit)
		use := func(instance int) int {
			start := time.Now()
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/signup", nil)
			r.Header.Set("Invitation", "for-alice")
			instances[instance].ServeHTTP(w, r)
			if w.Code == http.StatusCreated {
				judge.Admit(start, 1)
			}
			return w.Code
		}
		for i := range 5 {
			require.Equal(t, http.StatusCreated, use(i%3))
		}
		require.Equal(t, http.StatusTooManyRequests, use(2))

		limiter, ok := cluster.Node(0).LimiterNamed("signup")
		require.True(t, ok)
		owner := cluster.Index(limiter.Owner("for-alice").Name)
		time.Sleep(100 * time.Millisecond) // what was admitted in the last 20 ms would be forgotten
		cluster.Kill(owner)
		for range 1000 { // ten seconds, in which the others notice, and take over
			require.Equal(t, http.StatusTooManyRequests, use((owner+1)%3))
			require.Equal(t, http.StatusTooManyRequests, use((owner+2)%3))
			time.Sleep(10 * time.Millisecond)
		}
		judge.Held(t, 0)

		time.Sleep(5 * time.Second)
		require.Equal(t, http.StatusCreated, use((owner+1)%3), "one more every twelve seconds")
		judge.Held(t, 0)
	})
}
