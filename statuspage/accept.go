package statuspage

import (
	"mime"
	"strconv"
	"strings"
)

// prefersJSON reports whether an Accept header asks for JSON rather than for a page. Browsers and curl get the page.
func prefersJSON(accept []string) bool {
	asJSON, asPage := 0.0, 0.0
	for _, field := range accept {
		for part := range strings.SplitSeq(field, ",") {
			kind, parameters, err := mime.ParseMediaType(part)
			if err != nil {
				continue
			}
			weight, err := strconv.ParseFloat(parameters["q"], 64)
			if err != nil {
				weight = 1
			}
			switch kind {
			case "application/json":
				asJSON = max(asJSON, weight)
			case "text/html", "text/*", "*/*":
				asPage = max(asPage, weight)
			}
		}
	}
	return asJSON > 0 && (asJSON > asPage || asJSON == asPage && !strings.Contains(strings.Join(accept, ","), "text/html"))
}
