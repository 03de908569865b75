//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
)

// TestBaseline rotates the same targets with the script, and with tiwkeyd.
func TestBaseline(t *testing.T) {
	program, n := build(t), size(t, 300)
	w := newWorld(t, n)
	w.seed()
	root := w.vault.Client(w.vault.Token).KVv2("secret")
	var args []string
	for _, target := range w.targets {
		args = append(args, fmt.Sprint(target.SdkAppID))
		if _, err := root.Put(t.Context(), fmt.Sprintf("script/%d", target.SdkAppID), map[string]any{"callback_key": w.tiw.KeyInForce(target.SdkAppID, service)}); err != nil {
			t.Fatal(err)
		}
	}
	const rate = 200
	warm := func(r *reader) { time.Sleep(2 * time.Duration(n) * time.Second / rate); r.sent.Store(0) }

	r, end := w.callbacks(t.Context(), rate, w.scriptKeys)
	warm(r)
	began := time.Now()
	script := exec.Command("./baseline.sh", args...)
	script.Env = append(environment(w), "PATH="+vaultOnPath(t)+":"+os.Getenv("PATH"))
	if out, err := script.CombinedOutput(); err != nil {
		t.Fatalf("the script: %v\n%s", err, out)
	}
	theirs := took{wall: time.Since(began), began: began}
	time.Sleep(refresh + 2*time.Second)
	end()
	theirs.sent, theirs.refused, theirs.bySecond = r.sent.Load(), r.refused.Load(), r.bySecond

	// tiwkeyd begins with the keys that the script has set.
	w.adopt()
	sets := w.counts().sets
	r, end = w.callbacks(t.Context(), rate, w.keyringKeys)
	warm(r)
	d := start(t, program, environment(w, "TIWKEYD_SCHEDULE=@yearly"))
	time.Sleep(time.Duration(n)*time.Second/4 + 5*time.Second) // it looks at each first
	began = time.Now()
	_ = d.cmd.Process.Signal(syscall.SIGUSR1)
	w.sets(sets+n, 10*time.Minute)
	ours := took{wall: time.Since(began), began: began}
	time.Sleep(refresh + 2*time.Second)
	end()
	ours.sent, ours.refused, ours.bySecond = r.sent.Load(), r.refused.Load(), r.bySecond

	fmt.Printf("\n| | targets | wall time | per rotation | callbacks | refused |\n|---|---|---|---|---|---|\n")
	for name, x := range map[string]took{"baseline.sh": theirs, "tiwkeyd": ours} {
		fmt.Printf("| %s | %d | %.1f s | %.0f ms | %d | %d |\n", name, n, x.wall.Seconds(), float64(x.wall.Milliseconds())/float64(n), x.sent, x.refused)
	}
	fmt.Printf("| tiwkeyd / baseline.sh | | %.2f | %.2f | | |\n", ours.wall.Seconds()/theirs.wall.Seconds(), ours.wall.Seconds()/theirs.wall.Seconds())
	if err := os.WriteFile("refused.svg", []byte(picture(theirs, ours)), 0o644); err != nil {
		t.Fatal(err)
	}
	if ours.refused != 0 {
		t.Errorf("tiwkeyd: %d callbacks were refused", ours.refused)
	}
}

// adopt brings the keyrings up to what is in force.
func (w *world) adopt() {
	w.t.Helper()
	for _, t := range w.targets {
		s, err := w.store.Read(context.Background(), t)
		if err != nil {
			w.t.Fatal(err)
		}
		s.Keyring.Keys[0].Key = secrets.NewKey("fromscript", w.tiw.KeyInForce(t.SdkAppID, service))
		if _, err := w.store.Write(context.Background(), t, s.Keyring, s.Version); err != nil {
			w.t.Fatal(err)
		}
	}
}

// vaultOnPath is a directory with the vault command in it.
func vaultOnPath(t *testing.T) string {
	t.Helper()
	return filepath.Dir(vaulttest.Full.Need(t))
}

// picture draws the callbacks that were refused, by second, both side by side.
func picture(theirs, ours took) string {
	const width, height, gap = 460, 220, 40
	seconds, most := 1.0, 1.0
	for _, x := range []took{theirs, ours} {
		seconds = max(seconds, x.wall.Seconds()+refresh.Seconds()+3)
		for _, n := range x.bySecond {
			most = max(most, float64(n))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13"><rect width="100%%" height="100%%" fill="#fff"/>`, 2*width+3*gap, height+100)
	for i, x := range []took{theirs, ours} {
		left, bottom := float64(gap+i*(width+gap)), float64(height+50)
		name := []string{"baseline.sh", "tiwkeyd"}[i]
		fmt.Fprintf(&b, "\n"+`<text x="%g" y="25" font-size="16">%s: %d of %d genuine callbacks refused</text><text x="%g" y="44" fill="#555">%.0f s for all; refused per second, up to %.0f</text>`,
			left, name, x.refused, x.sent, left, x.wall.Seconds(), most)
		fmt.Fprintf(&b, `<path d="M%g %gv-%d M%g %gh%d" stroke="#888" fill="none"/>`, left, bottom, height-20, left, bottom, width)
		for second, n := range x.bySecond {
			at := float64(second-x.began.Unix()) / seconds * width
			h := float64(n) / most * (height - 20)
			fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.2f" height="%.1f" fill="#c62828"/>`, left+at, bottom-h, max(1, width/seconds), h)
		}
		fmt.Fprintf(&b, `<text x="%g" y="%g" fill="#555">0 s</text><text x="%g" y="%g" fill="#555" text-anchor="end">%.0f s</text>`, left, bottom+20, left+width, bottom+20, seconds)
	}
	b.WriteString("\n</svg>\n")
	return b.String()
}

// took is how a rotation of all targets went.
type took struct {
	wall          time.Duration
	began         time.Time
	sent, refused int64
	bySecond      map[int64]int64
}
