// Package tracing shows each rotation as an OpenTelemetry trace: its steps and waits, with
// target, reason, result, error code and the key's id. It is sent by OTLP/HTTP to where
// OTEL_EXPORTER_OTLP_ENDPOINT says; without that variable nothing of it runs.
//
// A rotation outlives processes, and may be handed from one replica to another. So nothing is
// kept open: trace and root span have ids that follow from the rotation's, whoever does a step
// sends it, and whoever ends the rotation sends the root.
package tracing

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"tiwkeyd/secrets"
)

// closeLimit is how long spans may take to be sent when the daemon ends.
const closeLimit = 500 * time.Millisecond

// Start gives a Recorder that sends what it hears, or nil if the environment names no place.
func Start(ctx context.Context, version string, log *slog.Logger) (*Recorder, error) {
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return nil, nil
	}
	// The library has no other way to tell that nobody takes the spans.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces could not be sent", "error", err.Error()) }))
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("set up traces: %w", err)
	}
	// What the environment says (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) goes before ours.
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "tiwkeyd"), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("set up traces: %w", err)
	}
	// Rotations are few: each is worth its trace.
	p := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about), sdk.WithIDGenerator(ids{}), sdk.WithSampler(sdk.AlwaysSample()))
	return &Recorder{exporter: exporter, provider: p, tracer: p.Tracer("tiwkeyd/rotator"), targets: map[secrets.Target]*underWay{}}, nil
}

// Close sends what is left, as far as that is quick.
func (r *Recorder) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	if r.provider.Shutdown(ctx) != nil {
		// What is being sent is broken off, or it would go on in the background.
		_ = r.exporter.Shutdown(context.Background())
	}
}

// rootOf is the span that stands for a rotation, whoever sends it.
func rootOf(rotation string) trace.SpanContext {
	sum := sha256.Sum256([]byte("tiwkeyd rotation " + rotation))
	var c trace.SpanContextConfig
	copy(c.TraceID[:], sum[:16])
	copy(c.SpanID[:], sum[16:24])
	c.TraceFlags, c.Remote = trace.FlagsSampled, true
	return trace.NewSpanContext(c)
}

// rootKey is under what a context names the rotation whose root is begun with it.
type rootKey struct{}

// ids gives a root the ids that follow from its rotation's, and other spans random ones.
type ids struct{}

func (g ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if rotation, ok := ctx.Value(rootKey{}).(string); ok {
		c := rootOf(rotation)
		return c.TraceID(), c.SpanID()
	}
	var t trace.TraceID
	_, _ = rand.Read(t[:])
	return t, g.NewSpanID(ctx, t)
}

func (ids) NewSpanID(context.Context, trace.TraceID) trace.SpanID {
	var s trace.SpanID
	_, _ = rand.Read(s[:])
	return s
}
