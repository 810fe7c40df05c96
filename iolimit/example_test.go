package iolimit_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/iolimit"
)

// Downloads of one customer share 2 MB a second, on whatever instance of the service they are served.
func ExampleNewWriter() {
	node, err := peerlimit.Start(peerlimit.Config{}) // with Join and Secret in earnest
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	egress, err := node.Limiter("egress", peerlimit.PerSecond(2e6).WithBurst(100_000))
	if err != nil {
		log.Fatal(err)
	}

	var client bytes.Buffer // an http.ResponseWriter, say
	start := time.Now()
	w, err := iolimit.NewWriter(context.Background(), &client, iolimit.Bandwidth{Taker: egress, Key: "customer-7"})
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	if _, err := io.Copy(w, strings.NewReader(strings.Repeat("x", 300_000))); err != nil {
		log.Fatal(err)
	}
	fmt.Println(client.Len(), "bytes, in 100ms or more:", time.Since(start) >= 100*time.Millisecond)
	// Output: 300000 bytes, in 100ms or more: true
}

// An upload is read no faster than it may come in; the sender is slowed down by its full buffers.
func ExampleNewReader() {
	node, err := peerlimit.Start(peerlimit.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	ingress, err := node.Limiter("ingress", peerlimit.PerSecond(1e6))
	if err != nil {
		log.Fatal(err)
	}

	upload := strings.NewReader("the body of a request")
	r, err := iolimit.NewReader(context.Background(), upload, iolimit.Bandwidth{Taker: ingress, Key: "customer-7"})
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(body))
	// Output: the body of a request
}

// A connection with a limit for each direction. Deadlines work as with any connection, also while it waits for its turn.
func ExampleNewConn() {
	node, err := peerlimit.Start(peerlimit.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	up, err := node.Limiter("up", peerlimit.PerSecond(1e6))
	if err != nil {
		log.Fatal(err)
	}
	down, err := node.Limiter("down", peerlimit.PerSecond(10e6))
	if err != nil {
		log.Fatal(err)
	}

	here, there := net.Pipe() // net.Dial or Accept
	conn, err := iolimit.NewConn(here, iolimit.Bandwidth{Taker: down, Key: "site"}, iolimit.Bandwidth{Taker: up, Key: "site"})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(there, there) // an echo
	}()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		log.Fatal(err)
	}
	go func() {
		_, _ = conn.Write([]byte("hello"))
	}()
	answer := make([]byte, 5)
	if _, err := io.ReadFull(conn, answer); err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(answer))
	// Output: hello
}
