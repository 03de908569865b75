package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"slices"
	"strings"
)

// guard is one place in a file that can be taken away.
type guard struct {
	path, function, what string
	line                 int
	without              []byte // the file, as it would be
}

// finder collects the guards of a file.
type finder struct {
	path     string
	source   []byte
	set      *token.FileSet
	function string
	found    []guard
}

func guardsOf(path string) ([]guard, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := &finder{path: path, source: source, set: token.NewFileSet()}
	file, err := parser.ParseFile(f.set, path, source, 0)
	if err != nil {
		return nil, err
	}
	for _, d := range file.Decls {
		if d, ok := d.(*ast.FuncDecl); ok {
			f.function = d.Name.Name
			ast.Inspect(d.Body, f.visit)
		}
	}
	return f.found, nil
}

func (f *finder) visit(n ast.Node) bool {
	switch x := n.(type) {
	case *ast.IfStmt:
		f.never(x.Cond)
	case *ast.SwitchStmt:
		if x.Tag != nil {
			break // the cases are values, not conditions
		}
		for _, c := range x.Body.List {
			for _, e := range c.(*ast.CaseClause).List {
				f.never(e)
			}
		}
	case *ast.ReturnStmt:
		for _, e := range x.Results {
			f.parts(e)
		}
	case *ast.AssignStmt:
		for _, e := range x.Rhs {
			f.parts(e)
		}
	case *ast.CallExpr:
		name := f.text(x.Fun)
		switch {
		case slices.Contains([]string{"later", "earlier", "sooner"}, name):
			f.choice(x, "time.Time")
		case slices.Contains([]string{"max", "min"}, name):
			f.choice(x, "time.Duration")
		case strings.HasSuffix(name, ".plausible"):
			f.replace(x, f.text(x.Args[0]), f.text(x.Args[0]))
		}
	}
	return true
}

// choice takes either of two values without a look at the other, which is still named.
func (f *finder) choice(c *ast.CallExpr, kind string) {
	a, b := f.text(c.Args[0]), f.text(c.Args[1])
	for i, chosen := range []string{a, b} {
		f.replace(c, chosen, fmt.Sprintf("func(v ...%s) %s { return v[%d] }(%s, %s)", kind, kind, i, a, b))
	}
}

// never has the condition of a branch not hold, and then each part of it taken away.
func (f *finder) never(e ast.Expr) {
	f.replace(e, "false", "false && ("+f.text(e)+")") // which leaves no name unused
	f.parts(e)
}

// parts takes away, in turn, each part of a condition that is joined with others.
func (f *finder) parts(e ast.Expr) {
	switch x := e.(type) {
	case *ast.ParenExpr:
		f.parts(x.X)
	case *ast.UnaryExpr:
		f.parts(x.X)
	case *ast.BinaryExpr:
		neutral := map[token.Token][2]string{token.LAND: {"true", "||"}, token.LOR: {"false", "&&"}}[x.Op]
		if neutral[0] == "" {
			return
		}
		for _, side := range []ast.Expr{x.X, x.Y} {
			f.replace(side, neutral[0], neutral[0]+neutral[1]+"("+f.text(side)+")")
			f.parts(side)
		}
	}
}

// replace puts code in e's place, which is the same as what it says.
func (f *finder) replace(e ast.Expr, says, code string) {
	from, to := f.set.Position(e.Pos()), f.set.Position(e.End())
	without := slices.Concat(f.source[:from.Offset], []byte("("+code+")"), f.source[to.Offset:])
	what := strings.Join(strings.Fields(f.text(e)+" → "+says), " ")
	f.found = append(f.found, guard{f.path, f.function, what, from.Line, without})
}

func (f *finder) text(n ast.Node) string {
	var b bytes.Buffer
	_ = printer.Fprint(&b, f.set, n)
	return b.String()
}
