package signup

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peerlimit/peerlimit/peerlimittest"
)

// An invitation that was used up stays used up, whichever instance is asked, and also when the one that knows so is killed.
func TestAnInvitationStaysUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		var instances []http.Handler
		for i := range cluster.Len() {
			handler, err := NewHandler(cluster.Node(i))
			if err != nil {
				t.Fatal(err)
			}
			instances = append(instances, handler)
		}
		judge := peerlimittest.NewJudge(t, Limit)
		use := func(instance, want int) {
			t.Helper()
			start := time.Now()
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/signup", nil)
			r.Header.Set("Invitation", "for-alice")
			instances[instance].ServeHTTP(w, r)
			if w.Code == http.StatusCreated {
				judge.Admit(start, 1)
			}
			if w.Code != want {
				t.Fatalf("instance %d answered %d, not %d", instance, w.Code, want)
			}
		}
		for i := range 5 {
			use(i%3, http.StatusCreated)
		}
		use(2, http.StatusTooManyRequests)

		limiter, ok := cluster.Node(0).LimiterNamed("signup")
		if !ok {
			t.Fatal("there is no limiter of that name")
		}
		owner := cluster.Index(limiter.Owner("for-alice").Name)
		time.Sleep(100 * time.Millisecond) // what was admitted in the last 20 ms would be forgotten
		cluster.Kill(owner)
		for range 1000 { // ten seconds, in which the others notice, and take over
			use((owner+1)%3, http.StatusTooManyRequests)
			use((owner+2)%3, http.StatusTooManyRequests)
			time.Sleep(10 * time.Millisecond)
		}
		judge.Held(t, 0)

		time.Sleep(5 * time.Second)
		use((owner+1)%3, http.StatusCreated) // one more every twelve seconds
		judge.Held(t, 0)
	})
}
