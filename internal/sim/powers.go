package sim

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"tiwkeyd/internal/schedule"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// Powers are what a world may do beside what every world does. Each world has some of them, which
// follow from its seed.
type Powers uint

// The powers.
const (
	Differ    Powers = 1 << iota // replicas differ in every setting that I1 lets differ
	Reload                       // settings change in the middle of anything, and in some worlds reloads never end
	Override                     // a shell writes overrides while rotations are in hand, and receivers get slower and faster
	Stale                        // a node of the store tells any older version at each read
	Delete                       // keyrings are deleted softly and undeleted, or with their metadata and made anew
	Restore                      // an older version is written over the keyring
	Edit                         // callback_key and accept are changed by hand
	Outdated                     // Describe tells keys that were in force earlier, now and then or for a spell
	Midway                       // keyrings are edited in the middle of a rotation, and backups may have been made there
	Rival                        // somebody else sets keys again and again, within minutes
	Strangers                    // a foreign key that is adopted where a keyring was lost is answered for from then on

	allPowers = Strangers<<1 - 1
)

var powerNames = []string{"differ", "reload", "override", "stale", "delete", "restore", "edit", "outdated", "midway", "rival", "strangers"}

// ParsePowers reads names with commas between them.
func ParsePowers(names string) (p Powers, err error) {
	for name := range strings.SplitSeq(names, ",") {
		known := false
		for i, n := range powerNames {
			if n == name {
				p, known = p|1<<i, true
			}
		}
		if !known && name != "" {
			return 0, fmt.Errorf("%q is none of %s", name, strings.Join(powerNames, ", "))
		}
	}
	return p, nil
}

func (p Powers) String() string {
	var names []string
	for i, n := range powerNames {
		if p&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, ",")
}

func (w *World) has(p Powers) bool { return w.powers&p != 0 }

func pick[T any](w *World, from ...T) T { return from[w.draw(uint64(len(from)))] }

// The times that receivers may need, and the longest that anything is due after the last rotation.
var lags = []time.Duration{30 * time.Second, 2 * time.Minute, 6 * time.Minute, 10 * time.Minute}

const longestEvery = 3 * time.Hour

// empower draws what this world can do.
func (w *World) empower() {
	for i := range powerNames {
		if w.draw(5) < 2 {
			w.powers |= 1 << i
		}
	}
	w.powers &^= w.Without
	if w.has(Differ) {
		w.truth.Propagation = pick(w, lags[1:]...)
		w.adopts = w.draw(3) == 0
	}
	// Where a keyring can be lost, or an old one be there again, each process has to know how late receivers
	// are. Else one does, from the first start on, and the keyring tells the others.
	w.allKnow = !w.has(Differ) || w.has(Delete|Restore) || w.draw(2) == 0
	w.slowest = 15 * time.Minute
	if w.has(Delete | Restore) {
		w.slowest = w.truth.Propagation
	}
	if w.has(Restore) && w.adopts {
		w.powers &^= Outdated // which key went nobody knows after it, and adoption rests on Describe
	}
	w.told = w.truth.Propagation
	w.storm = w.has(Reload) && w.draw(6) == 0
	w.single = w.draw(3) == 0
	w.standby = w.draw(2) == 0
}

// config is what a replica is told.
type config struct {
	policy rotator.Policy
	every  time.Duration
	rate   float64
}

// configured gives what the nth replica is told.
func (w *World) configured(n int) config {
	c := config{policy: w.base, every: every}
	p := &c.policy
	if w.has(Differ) {
		p.Propagation, p.PropagationSet = pick(w, append(lags, 15*time.Minute)...), w.draw(2) == 0
		if n == 0 || w.allKnow {
			p.Propagation = max(p.Propagation, w.told)
		}
		p.PropagationSet = p.PropagationSet || (n == 0 && !w.allKnow)
		p.Grace = pick(w, 10*time.Minute, 30*time.Minute, time.Hour)
		p.AttemptLimit = pick(w, 20*time.Minute, time.Hour, 2*time.Hour)
		p.Reconcile = pick(w, 10*time.Minute, 15*time.Minute, 20*time.Minute)
		p.KeyLength = pick(w, 32, 48, 64)
		p.OnDrift = pick(w, rotator.Reassert, rotator.Reassert, rotator.AlarmOnly)
		if w.adopts {
			p.OnDrift = pick(w, rotator.Reassert, rotator.AdoptKey, rotator.AlarmOnly)
		}
		c.every = pick(w, time.Hour, 2*time.Hour, longestEvery)
		c.rate = pick(w, 0, 0.001, 20)
	}
	c.policy = w.Mutant.policy(c.policy)
	return c
}

// due is when a key is to be replaced: by the keyring's own schedule, if it has one.
func (c config) due() func(secrets.Target, *rotator.Keyring, time.Time) time.Time {
	s, err := schedule.Parse("@every "+c.every.String(), 0)
	if err != nil {
		panic(err)
	}
	return s.ByKeyring(slog.New(slog.DiscardHandler))
}

// options are an engine's parts.
func (r *replica) options() rotator.Options {
	c := r.config
	return rotator.Options{Store: store{r}, API: api{r}, Clock: clock{r}, Random: random{r.w}, Policy: c.policy, Log: r.log, StageRate: c.rate,
		Due: c.due(), Events: r.tell}
}

// reload has a replica read its settings anew: at once, or after the step in hand.
func (r *replica) reload() {
	if r.busy {
		r.stopping = true
		return
	}
	r.stopping = false
	if r.next.Equal(never) || r.w.now.Before(r.w.anew) {
		return
	}
	if r.w.draw(2) == 0 {
		r.config = r.w.configured(r.n)
	}
	same := r.w.calm || r.w.draw(8) != 0
	r.w.say("%s reloads (same places: %t)", r.name, same)
	if r.w.Mutant == ReloadForgets {
		r.engine = r.newEngine()
	} else {
		r.engine.Reconfigure(r.options(), same)
	}
	r.next = r.w.now
}

// operate is what somebody with a shell does to the keyring.
func (w *World) operate() {
	v := &w.vault
	if v.down || w.powers&(Override|Delete|Restore|Edit) == 0 {
		return
	}
	if v.deleted && len(v.versions) > v.life && w.draw(8) == 0 {
		v.deleted = false
		w.say("the keyring is undeleted")
		w.resume()
		return
	}
	k := v.latest()
	if k == nil {
		return
	}
	switch {
	case w.has(Override) && w.mishap(80):
		w.override(k)
	case w.has(Delete) && w.mishap(500):
		v.deleted = true
		w.say("the latest version of the keyring is deleted")
	case w.has(Delete) && k.Pending() == nil && w.mishap(300):
		w.begin()
	case w.has(Restore) && w.mishap(300):
		w.restore()
	case w.has(Edit) && (k.Pending() == nil || w.has(Midway)) && w.mishap(150):
		e := k.Clone()
		e.Edited = true
		w.write("somebody with an editor", e)
		if w.draw(2) == 0 { // nothing is left in accept: receivers keep what they had
			v.outages = append(v.outages, span{from: w.now, emptied: true})
		}
	}
}

// write has a shell write a version.
func (w *World) write(who string, k *rotator.Keyring) {
	v := &w.vault
	v.mended(w.now)
	v.versions = append(v.versions, version{k.Clone(), v.snapshot().Version + 1, w.now, w.undoing})
	w.say("%s writes version %d: accept %v", who, v.snapshot().Version, k.Accept())
	w.check()
}

// override has a shell write overrides. It says less of propagation only once receivers need no more.
func (w *World) override(k *rotator.Keyring) {
	var o rotator.Overrides
	if k.Overrides != nil {
		o = *k.Overrides
	}
	what := ""
	switch w.draw(4) {
	case 0:
		d := pick(w, append(lags, 0, 15*time.Minute)...)
		o.Propagation, what = &d, "propagation="+d.String()
		w.truth.Propagation = min(w.truth.Propagation, d)
	case 1:
		o.Schedule = pick(w, "", "@every 1h", "@every 3h")
		what = "schedule=" + o.Schedule
	case 2:
		o.Grace = pick(w, 0, 10*time.Minute, time.Hour)
		what = "grace=" + o.Grace.String()
	case 3:
		o.Paused = !o.Paused
		what = fmt.Sprint("paused=", o.Paused)
	}
	n := k.With(o)
	n.Edited = k.Edited
	w.named("tiwkeyd set "+what, n)
}

// named is write with a revision, as every program that writes keyrings gives them.
func (w *World) named(who string, k *rotator.Keyring) {
	edited := k.Edited
	k, err := k.Revised(random{w})
	if err != nil {
		panic(err)
	}
	k.Edited = edited && !strings.HasPrefix(who, "tiwkeyd")
	w.write(who, k)
}

// slower lets receivers be as late as all versions say that any of them may see: a key is known when it
// is set, if what the keyring said when it was staged was true.
func (w *World) slower(oldest time.Time) {
	if !w.has(Override) && !w.has(Differ) {
		return
	}
	most := w.slowest
	if most <= w.truth.Propagation {
		return
	}
	for i := len(w.vault.versions) - 1; i >= 0; i-- {
		v := w.vault.versions[i]
		if o := v.k.Overrides; o == nil || o.Propagation == nil {
			return
		} else {
			most = min(most, *o.Propagation)
		}
		if !v.from.After(oldest) {
			break
		}
	}
	if most > w.truth.Propagation {
		w.floor, w.truth.Propagation = oldest, most
		w.say("receivers are up to %s late from now on", most)
	}
}

// oldestView is the earliest moment from which a receiver may still have its view. It never goes back.
func (w *World) oldestView() time.Time {
	t := w.vault.oldestView(w.now, &w.truth)
	if t.Before(w.floor) {
		return w.floor
	}
	return t
}

// begin deletes the keyring with its metadata, as docs/operations.md says: no daemon serves the target
// until ten minutes later, when one adopts it.
func (w *World) begin() {
	v := &w.vault
	v.deleted, v.lives = true, v.lives+1
	v.life = len(v.versions)
	w.say("the keyring is deleted with its metadata")
	w.anew = w.now.Add(10 * time.Minute)
	for _, r := range w.replicas {
		r.leave()
	}
}

// leave has a replica serve the target no longer, until it is told to again.
func (r *replica) leave() {
	if r.busy {
		r.stopping = true
		return
	}
	r.engine.Drop(r.w.target)
	r.next = r.w.anew
}

// restore writes an older version over the keyring. From then on the product does not answer for requests that
// were decided on before, nor for the key in force if it is not the restored keyring's current one: receivers
// may refuse it until they know it.
func (w *World) restore() {
	v := &w.vault
	lived := v.versions[v.life:]
	k := lived[w.draw(uint64(len(lived)))].k.Clone()
	if p := k.Overrides; k.Edited || (p != nil && p.Propagation != nil && *p.Propagation < w.truth.Propagation) {
		return
	}
	if k.Pending() != nil && !w.has(Midway) {
		return
	}
	w.epoch++
	if !k.CallbackKey().Equal(w.tencent.inForce) {
		w.tencent.foreign = true
		w.unclaimed = w.now
	}
	if last := v.versions[len(v.versions)-1].k; last.Lookup(k.CallbackKey()) == nil { // receivers have not read of it yet, or not again
		w.unclaimed = w.now
	}
	w.write("a backup", k)
}

// outdated is what Describe tells a replica in place of the key in force: one that was earlier. It is not
// told where a key would be adopted on that word.
func (r *replica) outdated() secrets.Key {
	w := r.w
	t := &w.tencent
	last := r.told.Keyring
	if !w.has(Outdated) || w.calm || last == nil || last.Current() == nil || len(t.before) == 0 {
		return t.inForce
	}
	switch {
	case w.lie != nil && w.draw(12) == 0:
		w.lie = nil
	case w.lie == nil && w.mishap(25):
		k := pick(w, t.before[0], t.before[len(t.before)-1], t.before[w.draw(uint64(len(t.before)))])
		w.lie, w.alternates = &k, w.draw(2) == 0
		w.say("Describe tells %s for a while (and the truth in between: %t)", k, w.alternates)
	}
	if w.lie == nil || (w.alternates && w.draw(2) == 0) || (w.adopts && !knows(last, *w.lie)) {
		return t.inForce
	}
	return *w.lie
}

// knows reports whether a key is in a keyring, or went from it.
func knows(k *rotator.Keyring, key secrets.Key) bool {
	if key.IsZero() || k.Lookup(key) != nil {
		return true
	}
	for _, print := range k.Retired {
		if print == key.Fingerprint() {
			return true
		}
	}
	return false
}
