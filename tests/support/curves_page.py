"""The exported page in a browser: a person looks, clicks, drags and points."""

import time

GRAPH = "document.querySelector('.js-plotly-plot')"


class Curves:
    """The page as a person sees and uses it."""

    def __init__(self, page):
        self.page = page

    def wait(self, condition):
        # Not Playwright's wait_for_function, which evaluates text in the page: the page's policy forbids it.
        deadline = time.monotonic() + 20
        while not self.read(condition):
            assert time.monotonic() < deadline, condition
            self.page.wait_for_timeout(20)

    def read(self, expression):
        return self.page.evaluate(expression.replace("graph", GRAPH))

    @property
    def ranges(self):
        return self.read("[...graph.layout.xaxis.range, ...graph.layout.yaxis.range]")

    @property
    def metric(self):
        return self.page.locator(".ytitle").text_content()

    @property
    def highlighted(self):
        """The buttons that look pressed."""
        return self.read("""
            [...document.querySelectorAll('.updatemenu-button')]
              .filter(button => getComputedStyle(button.querySelector('rect')).fill == 'rgb(244, 250, 255)')
              .map(button => button.textContent)""")

    def at(self, epoch, value):
        """Return the position on the screen of a point of the curves, in pixels."""
        return self.read(f"""(() => {{
            const box = graph.getBoundingClientRect(), {{xaxis, yaxis}} = graph._fullLayout;
            return [box.x + xaxis._offset + xaxis.c2p({epoch}), box.y + yaxis._offset + yaxis.c2p({value})];
        }})()""")

    def press(self, label):
        button = self.page.locator(".updatemenu-button", has=self.page.get_by_text(label, exact=True))
        button.click()
        # A pointer on the button would colour it.
        self.page.mouse.move(5, 5)

    def drag(self, start, end):
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end), steps=5)
        self.page.mouse.up()

    def hover(self, epoch, value):
        """Point at a value; return the lines of the text that appears."""
        self.page.mouse.move(5, 5)
        self.page.mouse.move(*self.at(epoch, value), steps=3)
        text = self.page.locator(".hoverlayer .hovertext .nums")
        text.wait_for()
        lines = text.locator("tspan.line")
        return lines.all_text_contents()

    @property
    def drawn(self):
        """The names of the curves that are on the screen, each once."""
        return self.read(
            "[...new Set(graph.calcdata.map(curve => curve[0].trace).filter(trace => trace.visible === true"
            " && trace.x).map(trace => trace.legendgroup))].sort()"
        )
