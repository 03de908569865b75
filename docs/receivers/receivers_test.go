//go:build receivers

// Package receivers_test runs every recipe of this folder as a user would: the servers with
// callbacks over HTTP, the script through its standard input, the agent's configuration with
// a real Vault. A recipe whose runtime is missing fails, and says what to install.
package receivers_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// recipe is one way to run a server of this folder.
type recipe struct {
	file    string
	install string     // the packages that bring what it needs
	needs   [][]string // commands that succeed where it can run
	command func(*testing.T, place) *exec.Cmd
}

// place is where a recipe runs.
type place struct {
	dir, port   string
	application *application // what stands behind a recipe that only verifies
}

// recipes are the servers, each with the command that its first lines tell.
func recipes() []recipe {
	plain := func(name string, args ...string) func(*testing.T, place) *exec.Cmd {
		return func(*testing.T, place) *exec.Cmd { return exec.Command(name, args...) }
	}
	return []recipe{
		{file: "receiver.py", install: "python3", command: plain("python3", "receiver.py"),
			needs: [][]string{{"python3", "--version"}}},
		{file: "receiver.mjs", install: "nodejs", command: plain("node", "receiver.mjs"),
			needs: [][]string{{"node", "--version"}}},
		{file: "Receiver.java", install: "default-jdk-headless libjackson2-databind-java",
			command: plain("java", "-cp", "/usr/share/java/*", "Receiver.java"),
			needs:   [][]string{{"javac", "-version"}, {"ls", "/usr/share/java/jackson-databind.jar"}}},
		{file: "receiver.php", install: "php-cli php-apcu", command: func(_ *testing.T, p place) *exec.Cmd {
			return exec.Command("php", "-S", "127.0.0.1:"+p.port, "receiver.php")
		}, needs: [][]string{{"php", "-r", "exit(extension_loaded('apcu') ? 0 : 1);"}}},
		{file: "nginx.conf", install: "nginx-light libnginx-mod-http-js", command: nginx,
			needs: [][]string{{"nginx", "-v"}, {"ls", "/usr/lib/nginx/modules/ngx_http_js_module.so"}}},
	}
}

// eachServer runs a test with every server.
func eachServer(t *testing.T, run func(*testing.T, recipe)) {
	for _, r := range recipes() {
		t.Run(r.file, func(t *testing.T) {
			need(t, r.install, r.needs...)
			run(t, r)
		})
	}
}

// need fails the test, with what mends it, unless every command succeeds.
func need(t *testing.T, install string, commands ...[]string) {
	t.Helper()
	for _, c := range commands {
		cmd := exec.Command(c[0], c[1:]...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s is not there: apt-get install %s\n(%s: %v)\n%s", c[0], install, strings.Join(c, " "), err, out)
		}
	}
}

// nginx is the one server whose addresses stand in its file; the test's are put in their places.
func nginx(t *testing.T, p place) *exec.Cmd {
	t.Helper()
	text := rewrite(t, "nginx.conf",
		"127.0.0.1:8080", "127.0.0.1:"+p.port,
		"127.0.0.1:9000", p.application.address(),
		"/run/nginx-tiw.pid", filepath.Join(p.dir, "nginx.pid"),
		"access_log off;", "access_log off;\n"+temporaryFiles(p.dir),
		"events {}", "worker_processes 2;\nevents {}",
	)
	script, err := os.ReadFile("receiver.js")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(p.dir, "receiver.js"), script)
	write(t, filepath.Join(p.dir, "nginx.conf"), []byte(text))
	args := []string{"-e", "stderr", "-c", filepath.Join(p.dir, "nginx.conf")}
	if os.Getuid() == 0 {
		args = append(args, "-g", "user root;") // nobody else can enter the test's folder
	}
	return exec.Command("nginx", args...)
}

func temporaryFiles(dir string) string {
	var lines []string
	for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		lines = append(lines, fmt.Sprintf("%s_temp_path %s;", what, filepath.Join(dir, what)))
	}
	return strings.Join(lines, "\n")
}

// rewrite gives a file of this folder with the values of a place instead of the examples;
// each has to be there once, or the test would test something else.
func rewrite(t *testing.T, file string, pairs ...string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for i := 0; i < len(pairs); i += 2 {
		if n := strings.Count(text, pairs[i]); n != 1 {
			t.Fatalf("%s has %q %d times, where the test wants to put its own value once", file, pairs[i], n)
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace changes a file as Vault Agent does: by rename.
func replace(t *testing.T, path string, data []byte) {
	t.Helper()
	write(t, path+".new", data)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
