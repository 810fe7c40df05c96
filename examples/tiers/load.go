package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// sendRate is how many requests a second each customer sends: more than any tier allows.
const sendRate = 200

// names are the customers that send requests here, in the order of the output.
var names = []string{"bob", "acme"}

// count is how a customer has fared.
type count struct {
	admitted, denied int
	policy           string // as the last answer told it
}

func (c count) sent() int { return c.admitted + c.denied }

// sendAndTell has all customers send for some time, and prints how they have fared.
func sendAndTell(ctx context.Context, out io.Writer, urls []string, customers *tiers, lasts time.Duration) error {
	counts, failures := make([]count, len(names)), make([]error, len(names))
	var sending sync.WaitGroup
	for i, customer := range names {
		sending.Go(func() { counts[i], failures[i] = send(ctx, urls, customer, lasts) })
	}
	sending.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	for i, customer := range names {
		tell(out, customer, customers.tier(customer), counts[i])
	}
	return nil
}

// send sends requests of a customer, to each of the instances in turn, one after the other.
func send(ctx context.Context, urls []string, customer string, lasts time.Duration) (c count, err error) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	ticker := time.NewTicker(time.Second / sendRate)
	defer ticker.Stop()
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		if err := c.ask(ctx, client, urls[c.sent()%len(urls)], customer); err != nil {
			return c, err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return c, ctx.Err()
		}
	}
	return c, nil
}

// ask sends one request.
func (c *count) ask(ctx context.Context, client *http.Client, url, customer string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-Customer", customer)
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	switch response.StatusCode {
	case http.StatusOK:
		c.admitted++
	case http.StatusTooManyRequests:
		c.denied++
	default:
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	c.policy = response.Header.Get("RateLimit-Policy")
	return nil
}

// tell prints how a customer has fared.
func tell(out io.Writer, customer, tier string, c count) {
	fmt.Fprintf(out, "%-4s %-10s %4d sent, %4d admitted, %4d denied; %s\n", customer, tier, c.sent(), c.admitted, c.denied, c.policy)
}
