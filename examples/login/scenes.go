package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// attempt is what somebody sends to log in.
type attempt struct{ account, password, ip string }

// scene is a number of attempts, one after the other.
type scene struct {
	title    string
	attempts int
	attempt  func(i int) attempt
}

var scenes = []scene{
	{"bob logs in", 3, func(int) attempt { return attempt{"bob", "correct horse", "192.0.2.10"} }},
	{"somebody guesses alice's password, each time from elsewhere", 10, func(i int) attempt {
		return attempt{"alice", fmt.Sprint("123456", i), fmt.Sprint("198.51.100.", i)}
	}},
	{"somebody tries one password on many accounts", 30, func(i int) attempt {
		return attempt{fmt.Sprint("user", i), "123456", "203.0.113.7"}
	}},
	{"bob logs in once more", 1, func(int) attempt { return attempt{"bob", "correct horse", "192.0.2.10"} }},
}

// play sends the attempts, over the instances in turn, and prints how they were answered.
func (s scene) play(ctx context.Context, out io.Writer, client *http.Client, urls []string) error {
	var outcomes []string // different ones, in order
	counts := make(map[string]int)
	for i := range s.attempts {
		outcome, err := s.attempt(i).send(ctx, client, urls[i%len(urls)])
		if err != nil {
			return err
		}
		if counts[outcome] == 0 {
			outcomes = append(outcomes, outcome)
		}
		counts[outcome]++
	}
	fmt.Fprintf(out, "%s:\n", s.title)
	for _, outcome := range outcomes {
		fmt.Fprintf(out, "  %2d times %s\n", counts[outcome], outcome)
	}
	return nil
}

// send tries to log in, as a client behind a trusted proxy would, and returns the answer.
func (a attempt) send(ctx context.Context, client *http.Client, base string) (outcome string, err error) {
	form := url.Values{"account": {a.account}, "password": {a.password}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/login", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("X-Forwarded-For", a.ip)
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return "", err
	}
	outcome = response.Status
	if after := response.Header.Get("Retry-After"); after != "" {
		outcome += ", again in " + after + " s"
	}
	return outcome, nil
}
