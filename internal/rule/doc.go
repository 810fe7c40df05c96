// Package rule has limiters' names and limits as a node enforces them, found again by their encoding: requests from anywhere that
// say the same share one Rule, so that their buckets need no comparing. It also names buckets.
package rule
