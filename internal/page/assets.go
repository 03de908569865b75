package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"time"
)

//go:embed static
var static embed.FS

// assets are the files that a page loads, under an address that changes with them.
type assets struct {
	Version string
	files   map[string][]byte
}

func readAssets() assets {
	a := assets{files: map[string][]byte{}}
	sum := sha256.New()
	for _, name := range []string{"page.css", "page.js", "icon.svg"} {
		text, err := fs.ReadFile(static, "static/"+name)
		if err != nil {
			panic(err) // it is part of the program
		}
		sum.Write(text)
		a.files[name] = text
	}
	a.Version = hex.EncodeToString(sum.Sum(nil)[:6])
	return a
}

// serve gives a file. Under the address of another version, as in a page of the program before
// it was replaced, it is not to be kept.
func (a assets) serve(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	text, ok := a.files[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if r.PathValue("version") == a.Version {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(text))
}

// icon is for what a browser asks for by itself, where an answer is no page.
func (a assets) icon(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "icon.svg", time.Time{}, bytes.NewReader(a.files["icon.svg"]))
}
