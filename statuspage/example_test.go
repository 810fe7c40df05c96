package statuspage_test

import (
	"log"
	"net/http"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/statuspage"
)

func Example() {
	node, err := peerlimit.Start(peerlimit.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	page, err := statuspage.New(node, statuspage.Options{HideKeys: true})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux() // of a server that only operators get to
	mux.Handle("/debug/peerlimit", page)
}
