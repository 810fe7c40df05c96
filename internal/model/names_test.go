package model_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/model"
)

// notInCode are the rules of the model that the code does not have, and why.
var notInCode = map[string]string{
	"GoodbyeAfterSilence":     "in a small cluster half a second of silence would cost the others their quorum, and so calls",
	"DoubtedAreAsked":         "with panels a name that is only told of counts, and takes no majority away",
	"GoodbyeNamesRoster":      "with panels nobody is a majority for want of names",
	"RefusedLeaverReplicates": "a refused leaver may acquire anew instead, see keeper.wants",
}

// brackets finds what a comment puts in brackets: one name, or several with commas.
var brackets = regexp.MustCompile(`\[([A-Z]\w*(?:, [A-Z]\w*)*)\]`)

// The code names each rule of the model where it keeps it, so that somebody who changes one finds the other.
func TestCodeNamesEveryRule(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "*.go"))
	require.NoError(t, err)
	inside, err := filepath.Glob(filepath.Join("..", "*", "*.go"))
	require.NoError(t, err)
	named := make(map[string]bool)
	for _, file := range append(files, inside...) {
		if filepath.Dir(file) == filepath.Join("..", "model") || strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, found := range brackets.FindAllStringSubmatch(string(source), -1) {
			for _, name := range strings.Split(found[1], ", ") {
				named[name] = true
			}
		}
	}
	rules := model.RuleNames()
	for _, rule := range rules {
		_, absent := notInCode[rule]
		assert.NotEqual(t, absent, named[rule], "rule %s: named in the code %v, listed as not in it %v", rule, named[rule], absent)
	}
	for rule := range notInCode {
		assert.Contains(t, rules, rule, "not a rule of the model")
	}
}
