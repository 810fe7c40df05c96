// A module of its own with few dependencies, so that contestants whose dependencies conflict can all use it.
module github.com/peerlimit/peerlimit/bench/contest

go 1.25.0

require github.com/HdrHistogram/hdrhistogram-go v1.4.0

require (
	github.com/stretchr/testify v1.12.1
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)
