package peerlimit_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/fallback"
)

// startExample starts a cluster of one, which is what the zero Config makes; a service gives BindAddr and Join.
func startExample() *peerlimit.Node {
	node, err := peerlimit.Start(peerlimit.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	return node
}

// Two nodes share a limit: what one takes the other cannot.
func Example() {
	quiet := slog.New(slog.DiscardHandler)
	first, err := peerlimit.Start(peerlimit.Config{Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	defer first.Close()
	second, err := peerlimit.Start(peerlimit.Config{Join: []string{first.Self().Addr}, Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	defer second.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var limiters []*peerlimit.Limiter
	for _, node := range []*peerlimit.Node{first, second} {
		if err := node.WaitReady(ctx, 2); err != nil {
			log.Fatal(err)
		}
		limiter, err := node.Limiter("api", peerlimit.PerHour(3))
		if err != nil {
			log.Fatal(err)
		}
		limiters = append(limiters, limiter)
	}
	for i := range 4 {
		fmt.Println(limiters[i%2].Allow(ctx, "bob"))
	}
	// Output:
	// true
	// true
	// true
	// false
}

func ExampleStart() {
	node, err := peerlimit.Start(peerlimit.Config{BindAddr: "192.0.2.1:7946", Join: []string{"api.internal"}})
	if err != nil {
		fmt.Println(errors.Is(err, peerlimit.ErrInvalidConfig))
		return // nothing is encrypted: that has to be asked for with Insecure
	}
	defer node.Close()
	// Output: true
}

func ExampleLimiter_Take() {
	node := startExample()
	defer node.Close()
	limiter, err := node.Limiter("api", peerlimit.PerHour(10))
	if err != nil {
		log.Fatal(err)
	}
	for _, cost := range []float64{4, 5, 2} {
		d, err := limiter.Take(context.Background(), "bob", cost)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("cost %v: %v, %.0f left, decided by %v\n", cost, d.Allowed, d.Remaining, d.Origin)
	}
	// Output:
	// cost 4: true, 6 left, decided by local
	// cost 5: true, 1 left, decided by local
	// cost 2: false, 1 left, decided by local
}

func ExampleLimiter_Allow() {
	node := startExample()
	defer node.Close()
	login, err := node.Limiter("login", peerlimit.PerMinute(5).WithBurst(2))
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		fmt.Println(login.Allow(context.Background(), "bob@example.com"))
	}
	// Output:
	// true
	// true
	// false
}

func ExampleLimiter_Peek() {
	node := startExample()
	defer node.Close()
	limiter, err := node.Limiter("api", peerlimit.PerHour(10))
	if err != nil {
		log.Fatal(err)
	}
	limiter.AllowN(context.Background(), "bob", 7)
	d, err := limiter.Peek(context.Background(), "bob")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.0f left\n", d.Remaining)
	// Output: 3 left
}

// A fleet of workers that shares a third party's quota waits for its turn.
func ExampleLimiter_Wait() {
	node := startExample()
	defer node.Close()
	quota, err := node.Limiter("third-party", peerlimit.PerSecond(100).WithBurst(1))
	if err != nil {
		log.Fatal(err)
	}
	began := time.Now()
	for range 4 {
		if err := quota.Wait(context.Background(), "everyone"); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(time.Since(began) >= 30*time.Millisecond)
	// Output: true
}

// A wait that would outlast its deadline fails at once, and spends nothing.
func ExampleLimiter_WaitN() {
	node := startExample()
	defer node.Close()
	limiter, err := node.Limiter("batch", peerlimit.PerMinute(60).WithBurst(10))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err = limiter.WaitN(ctx, "bob", 25) // 10 at once, and 15 seconds for the others
	fmt.Println(errors.Is(err, peerlimit.ErrLimited))
	// Output: true
}

func ExampleLimiter_Reserve() {
	node := startExample()
	defer node.Close()
	limiter, err := node.Limiter("api", peerlimit.PerSecond(1).WithBurst(1))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	limiter.Allow(ctx, "bob")
	turn, err := limiter.Reserve(ctx, "bob", 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(turn.Delay() > 900*time.Millisecond)
	turn.Cancel() // bob has something better to do: the token goes back
	again, err := limiter.Reserve(ctx, "bob", 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(again.Delay() <= time.Second)
	// Output:
	// true
	// true
}

// Work that was not done after all is given back.
func ExampleLimiter_Refund() {
	node := startExample()
	defer node.Close()
	limiter, err := node.Limiter("api", peerlimit.PerHour(10))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	limiter.AllowN(ctx, "bob", 10)
	if err := limiter.Refund(ctx, "bob", 4); err != nil {
		log.Fatal(err)
	}
	fmt.Println(limiter.AllowN(ctx, "bob", 4), limiter.Allow(ctx, "bob"))
	// Output: true false
}

func ExampleLimiter_Reset() {
	node := startExample()
	defer node.Close()
	limiter, err := node.Limiter("login", peerlimit.PerHour(1))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	fmt.Println(limiter.Allow(ctx, "bob"), limiter.Allow(ctx, "bob"))
	if err := limiter.Reset(ctx, "bob"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(limiter.Allow(ctx, "bob"))
	// Output:
	// true false
	// true
}

// Limits that depend on the key: customers have tiers.
func ExampleNode_LimiterFunc() {
	node := startExample()
	defer node.Close()
	limiter, err := node.LimiterFunc("api", func(_ context.Context, key string) []peerlimit.Limit {
		if strings.HasPrefix(key, "enterprise:") {
			return []peerlimit.Limit{peerlimit.PerSecond(100)}
		}
		return []peerlimit.Limit{peerlimit.PerSecond(5)}
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, key := range []string{"free:bob", "enterprise:carol"} {
		d, err := limiter.Take(context.Background(), key, 1)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(key, d.Limit)
	}
	// Output:
	// free:bob 5 per 1s, burst 5
	// enterprise:carol 100 per 1s, burst 100
}

// A login page would rather turn people away than let an attacker guess while the cluster is in trouble.
func ExampleLimiter_WithFallback() {
	node := startExample()
	defer node.Close()
	limiter, err := node.Limiter("login", peerlimit.PerMinute(5))
	if err != nil {
		log.Fatal(err)
	}
	login := limiter.WithFallback(fallback.Closed)
	fmt.Println(login.Allow(context.Background(), "bob")) // this node owns the key: there is nobody to lose
	// Output: true
}

func ExampleNode_WaitReady() {
	node := startExample()
	defer node.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	fmt.Println(node.WaitReady(ctx, 1))
	err := node.WaitReady(ctx, 3)
	fmt.Println(err, errors.Is(err, context.DeadlineExceeded))
	// Output:
	// <nil>
	// peerlimit: not ready: sees 1 of 3 members, connected to 0 others; 0 partitions to receive, 0 to hand over: context deadline exceeded true
}
