package doctor

import "fmt"

const (
	// perKeyring is a generous measure of what one keyring takes on disk while it is replaced.
	perKeyring = 64 << 10
	// roomy is free space below which other writers may soon have used it up.
	roomy = 64 << 20
)

// directory looks at the place of a file store.
func (e *examination) directory() {
	dir := e.Config.FileStore
	f := Finding{Check: Directory, Target: dir, Status: OK}
	defer func() { e.report(f) }()
	p, err := e.Directory.Inspect()
	if err != nil {
		f.Status, f.What = Fail, err.Error()
		f.Mend = fmt.Sprintf("have TIWKEYD_STORE name a directory on a disk that can be written, which is the daemon's alone: `install -d -m 700 -o USER %s`", dir)
		return
	}
	f.What = fmt.Sprintf("it exists, can be written and is private; %d MiB are free", p.Free>>20)
	if !p.Exists {
		f.What = fmt.Sprintf("it will be made in %s, where %d MiB are free", p.Inside, p.Free>>20)
	}
	if need := uint64(len(e.Config.Targets)) * perKeyring; p.Free < need+roomy {
		f.Status, f.Mend = Warn, "free some space: with a full disk no key is replaced"
		if p.Free < need {
			f.Status = Fail
		}
	}
}
