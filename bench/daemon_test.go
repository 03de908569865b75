//go:build bench

package bench

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/internal/testport"
)

// daemon is a running tiwkeyd.
type daemon struct {
	cmd  *exec.Cmd
	addr string
	log  string
}

func start(t *testing.T, program string, env []string) *daemon {
	t.Helper()
	addr, _ := testport.Free(t)
	d := &daemon{cmd: exec.Command(program, "run"), addr: addr, log: filepath.Join(t.TempDir(), "log")}
	out, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Env, d.cmd.Stderr = append(env, "TIWKEYD_HTTP_ADDR="+d.addr), out
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.stop()
		_ = out.Close()
		if text, _ := os.ReadFile(d.log); t.Failed() {
			t.Logf("%.3000s", text)
		}
	})
	return d
}

// stop ends the daemon, if it has not ended yet.
func (d *daemon) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_ = d.cmd.Wait()
}

// ready waits until the daemon is, and gives how long that took.
func (d *daemon) ready(t *testing.T, began time.Time) time.Duration {
	t.Helper()
	for {
		res, err := http.Get("http://" + d.addr + "/readyz")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return time.Since(began)
			}
		}
		if time.Since(began) > 5*time.Minute {
			t.Fatal("the daemon is not ready")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// metric is the sum of a metric's series, which may be named with labels.
func (d *daemon) metric(t *testing.T, name string) (sum float64) {
	t.Helper()
	res, err := http.Get("http://" + d.addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		series, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || (series != name && !strings.HasPrefix(series, name+"{")) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// cpu is the processor time that the process has had, rss its resident memory, in bytes, largest so far.
func (d *daemon) cpu(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+2:]))
	var ticks int64
	for _, i := range []int{11, 12} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100
}

func (d *daemon) rss(t *testing.T, field string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), field+":")
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}
