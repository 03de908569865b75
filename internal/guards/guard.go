package main

import (
	"bytes"
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
	case *ast.CaseClause:
		for _, e := range x.List {
			f.never(e)
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
		case slices.Contains([]string{"later", "earlier", "sooner", "max", "min"}, name) && len(x.Args) == 2:
			f.replace(x, f.text(x.Args[0]))
			f.replace(x, f.text(x.Args[1]))
		case strings.HasSuffix(name, ".plausible"):
			f.replace(x, f.text(x.Args[0]))
		}
	}
	return true
}

// never has the condition of a branch not hold, and then each part of it taken away.
func (f *finder) never(e ast.Expr) {
	f.replace(e, "false && ("+f.text(e)+")") // which leaves no name unused
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
		neutral := map[token.Token]string{token.LAND: "true || ", token.LOR: "false && "}[x.Op]
		if neutral == "" {
			return
		}
		for _, side := range []ast.Expr{x.X, x.Y} {
			f.replace(side, neutral+"("+f.text(side)+")")
			f.parts(side)
		}
	}
}

func (f *finder) replace(e ast.Expr, by string) {
	from, to := f.set.Position(e.Pos()), f.set.Position(e.End())
	without := slices.Concat(f.source[:from.Offset], []byte("("+by+")"), f.source[to.Offset:])
	what := f.text(e)
	if constant, _, is := strings.Cut(by, " "); is && (constant == "true" || constant == "false") {
		what += " → " + constant
	} else {
		what += " → " + by
	}
	f.found = append(f.found, guard{f.path, f.function, strings.Join(strings.Fields(what), " "), from.Line, without})
}

func (f *finder) text(n ast.Node) string {
	var b bytes.Buffer
	_ = printer.Fprint(&b, f.set, n)
	return b.String()
}
