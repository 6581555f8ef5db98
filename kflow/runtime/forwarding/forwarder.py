"""Requests of services that kflow does not speak, on their way to whoever does.

Nothing is imported, started or connected before the first of them; the loop hands each to a thread and goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kflow.aws.identity import Caller
from kflow.runtime.forwarding.asking import Failed, Patience, Request
from kflow.runtime.forwarding.crews import Crew
from kflow.runtime.forwarding.headers import MARK, is_old_s3, onward, target_of
from kflow.runtime.forwarding.passage import Passage, Post
from kflow.runtime.forwarding.routes import Routes, Way
from kflow.settings import Settings
from kflow.settings.services import NOWHERE
from kflow.web.exchange import Exchange, Headers

if TYPE_CHECKING:
    from kflow.runtime.forwarding.moto import Moto
    from kflow.runtime.forwarding.resign import Profile
    from kflow.runtime.forwarding.upstream import Line

CREWS: Final = 64
"""So many services have threads of their own, the others share some: who invents names must not get more. chosen."""
HELD_BYTES: Final = 256 * 1024 * 1024
"""Of the bodies of requests that wait for their answers: above it, the next is refused. chosen."""
_READS: Final = frozenset({"GET", "HEAD"})
Notice = Callable[[str, str], object]


class Forwarder:
    """A `kflow.aws.door.Elsewhere`. Belongs to the loop's thread.

    Args:
        routes: the table of the settings.
        run_dir: for the output of moto.
        account: of callers.
        region: of callers that name none.
        post: reaches the loop from any thread.
        notice: tells people, on the loop.
        patience: how long upstreams are waited for.
        moto: None: one is made when it is needed.

    Attributes:
        takes: signing names and prefixes of targets of services that kflow speaks and that go elsewhere all the same.
    """

    def __init__(
        self,
        routes: Routes,
        *,
        run_dir: Path,
        account: str,
        region: str,
        post: Post,
        notice: Notice,
        patience: Patience | None = None,
        moto: Moto | None = None,
    ) -> None:
        self.takes = routes.takes
        self._routes = routes
        self._run_dir = run_dir
        self._account = account
        self._region = region
        self._notice = notice
        self._patience = patience or Patience()
        self._moto = moto
        self._profiles: dict[str, Profile] = {}
        self._crews: dict[tuple[str, str], Crew[Line]] = {}
        self._under_way: dict[Passage, int] = {}  # with the bytes of its body
        self._held = 0
        self._post_to_loop = post
        self._gate = threading.Lock()  # between threads that post and the end of the loop
        self._making = threading.Lock()  # of what threads share
        self._is_closed = False
        self._then: Callable[[], object] | None = None

    def forward(self, exchange: Exchange, caller: Caller, extra: Headers, request_id: str) -> bool:
        """Pass a request on; False: by the settings it goes nowhere.

        Args:
            exchange: the request.
            caller: who sends it.
            extra: headers that the answer has besides.
            request_id: for answers of our own.
        """
        signing_name = caller.signing_name
        if not signing_name and is_old_s3(exchange.target, exchange.headers.get("authorization", "")):
            signing_name = "s3"
        prefix = exchange.headers.get("x-amz-target", "").rpartition(".")[0]
        way = self._routes.of(signing_name, prefix)
        if way.route == NOWHERE:
            return False
        passage = Passage(exchange, signing_name, request_id, extra, self._post, self._patience.silence_s)
        self._under_way[passage] = size = len(exchange.body)
        self._held += size
        passage.on_end = partial(self._ended, passage)
        failed = None
        if self._is_closed:
            failed = Failed(503, "ServiceUnavailable", "the runtime ends")
        elif MARK in exchange.headers:
            failed = Failed(
                508, "UpstreamLoop", f"services.{way.service} = {way.route.value!r} leads back to this endpoint"
            )
        elif way.route.kind == "aws" and not _is_meant(exchange, signing_name):
            failed = Failed(
                403,
                "NotForwarded",
                "only what a program signed goes on to AWS: a link could have been made by any page",
            )
        elif self._held - size > HELD_BYTES or not self._crew(way).submit(
            partial(self._work, exchange, way, caller, signing_name, prefix, passage)
        ):
            failed = Failed(503, "ServiceUnavailable", f"too many calls of {way.service} wait for their answers")
        if failed is not None:
            passage.fail(failed)
        return True

    def reset(self) -> None:
        """Forget what the server of moto keeps."""
        if self._moto is not None:
            self._apart(self._moto.reset, None)

    def stop(self, then: Callable[[], object]) -> None:
        """Take nothing new; once the web server has let go of what is under way, end moto, then call back."""
        self._is_closed = True
        self._then = then
        self._finish()

    def _ended(self, passage: Passage) -> None:
        self._held -= self._under_way.pop(passage, 0)
        self._finish()

    def _finish(self) -> None:
        if self._then is None or self._under_way:
            return
        for crew in self._crews.values():
            crew.close()
        if self._moto is None:
            self._over()
        else:
            self._apart(self._moto.close, self._over)

    def _over(self) -> None:
        with self._gate:
            self._post_to_loop = _nowhere  # the loop ends soon
        then, self._then = self._then, None
        if then is not None:
            then()

    def _apart(self, work: Callable[[], object], then: Callable[[], object] | None) -> None:
        """Do what waits in a thread of its own."""

        def run() -> None:
            try:
                work()
            finally:
                if then is not None:
                    self._post(then)

        threading.Thread(target=run, name="kflow-forwarding", daemon=True).start()

    def _post(self, call: Callable[[], object]) -> None:
        """From any thread."""
        with self._gate:
            self._post_to_loop(call)

    def _crew(self, way: Way) -> Crew[Line]:
        key = (way.service, f"{way.route.kind}:{way.route.value}")
        if key not in self._crews and len(self._crews) >= CREWS:
            key = ("", key[1])
        crew = self._crews.get(key)
        if crew is None:
            crew = self._crews[key] = Crew(key[0] or "others", self._line, lambda line: line.close())
        return crew

    # in a thread of a crew

    def _line(self) -> Line:
        from kflow.runtime.forwarding.upstream import Line

        return Line(self._patience)

    def _work(
        self,
        exchange: Exchange,
        way: Way,
        caller: Caller,
        signing_name: str,
        prefix: str,
        passage: Passage,
        line: Line,
    ) -> None:
        try:
            if not passage.ticket.is_cancelled:
                request = self._request(exchange, way, caller, signing_name, prefix)
                passage.tell(line.ask(request, passage.ticket))
        except Failed as error:
            passage.fail(error)
        except Exception as error:
            passage.fail(Failed(502, "UpstreamUnreachable", f"the call could not be passed on: {error!r}"))
            raise

    def _request(self, exchange: Exchange, way: Way, caller: Caller, signing_name: str, prefix: str) -> Request:
        target = target_of(exchange.target, exchange.headers.get("host", ""), is_s3=signing_name == "s3")
        headers = onward(exchange.headers)
        if way.route.kind == "aws":
            from kflow.runtime.forwarding.resign import Meant

            request = Request("", exchange.method, target, headers, exchange.body)
            return self._profile(way.route.value).signed(
                request, Meant(signing_name, prefix, caller.place.region, way.named)
            )
        url = way.route.value if way.route.kind == "url" else self._moto_url()
        return Request(url, exchange.method, target, [*headers, (MARK, "1")], exchange.body)

    def _moto_url(self) -> str:
        with self._making:
            if self._moto is None:
                from kflow.runtime.forwarding.moto import Moto

                self._moto = Moto(self._run_dir, account=self._account, region=self._region, notice=self._tell_people)
            moto = self._moto
        return moto.url()

    def _profile(self, name: str) -> Profile:
        with self._making:
            found = self._profiles.get(name)
            if found is None:
                from kflow.runtime.forwarding.resign import Profile

                found = self._profiles[name] = Profile(name)
        return found

    def _tell_people(self, level: str, text: str) -> None:
        self._post(partial(self._notice, level, text))


def make(settings: Settings, spoken: Collection[str], *, run_dir: Path, post: Post, notice: Notice) -> Forwarder | None:
    """The forwarder that the settings ask for; None: all that kflow does not speak is refused.

    People are told what goes to AWS, and what does not come to kflow.

    Args:
        settings: with `services`.
        spoken: names of the services that kflow speaks.
        run_dir: of the data folder.
        post: reaches the loop from any thread.
        notice: tells people.
    """
    if not settings.services:
        return None
    routes = Routes(settings.services, spoken)
    if routes.is_empty:
        return None
    for service, route in (("all other services", routes.default), *routes.ways.items()):
        if route.kind == "aws":
            notice(
                "warning",
                f"calls of {service} go to AWS itself, signed with profile {route.value!r}: what handlers change there "
                "is changed for real (services, in the settings)",
            )
    for service in routes.taken:
        notice(
            "warning",
            f"calls of {service} that come to the endpoint are not answered by kflow's own {service}, but passed on, "
            f"for services.{service} says so; triggers and `kflow` itself see kflow's own all the same",
        )
    return Forwarder(
        routes, run_dir=run_dir, account=settings.account, region=settings.region, post=post, notice=notice
    )


def _is_meant(exchange: Exchange, signing_name: str) -> bool:
    """Whether a program means this call: a page can make a browser send neither of these headers, unless it asks.

    Presigned links only read, and only from S3: documented: AWS's query protocol takes any action by GET.
    """
    headers = exchange.headers
    return (
        "authorization" in headers or "x-amz-target" in headers or (signing_name == "s3" and exchange.method in _READS)
    )


def _nowhere(call: Callable[[], object]) -> None:
    """The loop is gone."""
    del call
