package metrics_test

import (
	"io"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// writeText writes a family as a scrape has it.
func writeText(w io.Writer, family *dto.MetricFamily) error {
	_, err := expfmt.MetricFamilyToText(w, family)
	return err
}

// text is one metric, for a search in its labels.
func text(m prometheus.Metric) string {
	var d dto.Metric
	if err := m.Write(&d); err != nil {
		return err.Error()
	}
	return d.String()
}
