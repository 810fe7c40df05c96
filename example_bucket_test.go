package peerlimit_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/peerlimit/peerlimit"
)

func ExampleNewBucket() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerMinute(3))
	if err != nil {
		log.Fatal(err)
	}
	for range 4 {
		fmt.Println(bucket.Allow())
	}
	// Output:
	// true
	// true
	// true
	// false
}

// A limit that makes no sense is refused with the field and the value that are wrong.
func ExampleNewBucket_invalid() {
	_, err := peerlimit.NewBucket(peerlimit.PerSecond(-5))
	fmt.Println(err)
	fmt.Println(errors.Is(err, peerlimit.ErrInvalidLimit))
	// Output:
	// peerlimit: invalid limit: Tokens is -5; it must be positive and finite
	// true
}

// A take must pass all limits, or it takes from none: here ten a second, and not more than fifteen an hour.
func ExampleNewBucket_severalLimits() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerSecond(10), peerlimit.PerHour(15))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(bucket.AllowN(10))
	time.Sleep(50 * time.Millisecond) // half a token, under the first
	d, err := bucket.Take(7)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(d.Allowed)
	fmt.Println(d.Limit)
	// Output:
	// true
	// false
	// 15 per 1h0m0s, burst 15
}

// With a burst of one, requests are paced evenly.
func ExampleLimit_WithBurst() {
	limit := peerlimit.PerSecond(100).WithBurst(1)
	bucket, err := peerlimit.NewBucket(limit)
	if err != nil {
		log.Fatal(err)
	}
	start := time.Now()
	for range 4 {
		if err := bucket.Wait(context.Background()); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(limit)
	fmt.Println("three pauses of 10ms:", time.Since(start) >= 30*time.Millisecond)
	// Output:
	// 100 per 1s, burst 1
	// three pauses of 10ms: true
}

// A leaky bucket lets requests leave one after the other: Delay says when. What finds no room in its queue is refused.
func ExampleLimit_Leaky() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerHour(60).WithBurst(3).Leaky())
	if err != nil {
		log.Fatal(err)
	}
	for range 4 {
		d, err := bucket.Take(1)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(d.Allowed, d.Delay.Round(time.Minute))
	}
	// Output:
	// true 0s
	// true 1m0s
	// true 2m0s
	// false 0s
}

func ExamplePer() {
	fmt.Println(peerlimit.Per(1000, 24*time.Hour))
	fmt.Println(peerlimit.Per(1, 500*time.Millisecond).WithBurst(5))
	// Output:
	// 1000 per 24h0m0s, burst 1000
	// 1 per 500ms, burst 5
}

func ExampleLimit_Validate() {
	fmt.Println(peerlimit.PerSecond(10).Validate())
	fmt.Println(peerlimit.Per(10, 0).Validate())
	// Output:
	// <nil>
	// peerlimit: invalid limit: Period is 0s; it must be positive
}

func ExampleBucket_Allow() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerHour(1))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(bucket.Allow(), bucket.Allow())
	// Output: true false
}

func ExampleBucket_Take() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerHour(20))
	if err != nil {
		log.Fatal(err)
	}
	for _, cost := range []float64{15, 15} {
		d, err := bucket.Take(cost)
		if err != nil {
			log.Fatal(err) // the call was wrong; a denial is not an error
		}
		fmt.Printf("allowed: %v, remaining: %.0f, retry after: %v\n", d.Allowed, d.Remaining, d.RetryAfter.Round(time.Minute))
	}
	// Output:
	// allowed: true, remaining: 5, retry after: 0s
	// allowed: false, remaining: 5, retry after: 30m0s
}

// One bucket for calls that cost differently: a read is 1, a write 5, a report 20.
func ExampleBucket_Take_costs() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerHour(30))
	if err != nil {
		log.Fatal(err)
	}
	for _, cost := range []float64{20, 5, 5, 1} {
		d, err := bucket.Take(cost)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("cost %v: %v, %.0f left\n", cost, d.Allowed, d.Remaining)
	}
	_, err = bucket.Take(31)
	fmt.Println(err)
	// Output:
	// cost 20: true, 10 left
	// cost 5: true, 5 left
	// cost 5: true, 0 left
	// cost 1: false, 0 left
	// peerlimit: cost exceeds burst: cost 31, burst 30: raise the burst, split the cost, or use WaitN
}

func ExampleBucket_Peek() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerHour(5))
	if err != nil {
		log.Fatal(err)
	}
	bucket.AllowN(2)
	d := bucket.Peek() // takes nothing, however often
	fmt.Printf("%v, %.0f of %v\n", d.Allowed, bucket.Peek().Remaining, d.Limit)
	// Output: true, 3 of 5 per 1h0m0s, burst 5
}

func ExampleBucket_Wait() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerSecond(100).WithBurst(1))
	if err != nil {
		log.Fatal(err)
	}
	start := time.Now()
	for range 3 {
		if err := bucket.Wait(context.Background()); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("at least 20ms:", time.Since(start) >= 20*time.Millisecond)
	// Output: at least 20ms: true
}

// A wait that would outlast the deadline fails at once, and spends nothing.
func ExampleBucket_Wait_deadline() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerHour(1))
	if err != nil {
		log.Fatal(err)
	}
	bucket.Allow()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = bucket.Wait(ctx)
	fmt.Println(errors.Is(err, peerlimit.ErrLimited))
	fmt.Println("still time:", ctx.Err() == nil)
	// Output:
	// true
	// still time: true
}

// A cost above the burst is taken in instalments: 10 at once, and 25 more at 1000 a second.
func ExampleBucket_WaitN() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerSecond(1000).WithBurst(10))
	if err != nil {
		log.Fatal(err)
	}
	start := time.Now()
	if err := bucket.WaitN(context.Background(), 35); err != nil {
		log.Fatal(err)
	}
	fmt.Println("at least 25ms:", time.Since(start) >= 25*time.Millisecond)
	// Output: at least 25ms: true
}

func ExampleBucket_Reserve() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerHour(60).WithBurst(1))
	if err != nil {
		log.Fatal(err)
	}
	bucket.Allow()
	for range 2 {
		reservation, err := bucket.Reserve(1)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("wait for", reservation.Delay().Round(time.Minute))
	}
	// Output:
	// wait for 1m0s
	// wait for 2m0s
}

// A reservation that is not used is cancelled: if nothing was taken behind it, all of its tokens are back.
func ExampleReservation_Cancel() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerHour(10))
	if err != nil {
		log.Fatal(err)
	}
	reservation, err := bucket.Reserve(8)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.0f\n", bucket.Peek().Remaining)
	reservation.Cancel()
	fmt.Printf("%.0f\n", bucket.Peek().Remaining)
	// Output:
	// 2
	// 10
}

// What was paid for and not done can be given back.
func ExampleBucket_Refund() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerHour(10))
	if err != nil {
		log.Fatal(err)
	}
	bucket.AllowN(8)
	fmt.Printf("%.0f\n", bucket.Peek().Remaining)
	if err := bucket.Refund(5); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.0f\n", bucket.Peek().Remaining)
	// Output:
	// 2
	// 7
}

func ExampleBucket_Reset() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerHour(3))
	if err != nil {
		log.Fatal(err)
	}
	bucket.AllowN(3)
	fmt.Println(bucket.Allow())
	bucket.Reset()
	fmt.Println(bucket.Allow())
	// Output:
	// false
	// true
}

// A denial becomes an error where a function has nothing else to return.
func ExampleDecision_Err() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerHour(1))
	if err != nil {
		log.Fatal(err)
	}
	send := func() error {
		d, err := bucket.Take(1)
		if err != nil {
			return err
		}
		return d.Err()
	}
	fmt.Println(send())

	err = send()
	var limited *peerlimit.LimitedError
	if errors.As(err, &limited) {
		fmt.Println("try again in", limited.Decision.RetryAfter.Round(time.Minute))
	}
	fmt.Println(errors.Is(err, peerlimit.ErrLimited))
	// Output:
	// <nil>
	// try again in 1h0m0s
	// true
}
