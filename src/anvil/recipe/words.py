"""The words by which a recipe changes what it extends; each is one or a few calls of ``Recipe.extend``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.recipe import values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anvil.recipe.reference import Plain, Ref

    Value = Mapping[str, Plain | Ref]


class Words:
    """What a recipe that extends the ISO (or a recipe that does) can say. Errors: RecipeError, at the word's line."""

    name: str

    def extend(self, recipe: str, slot: str, name: str, value: Value) -> None:
        """Add to any slot of any recipe; see ``Recipe.extend``."""
        raise NotImplementedError

    def use(self, recipe: str, name: str) -> Ref:
        """A result of another recipe; see ``Recipe.use``."""
        raise NotImplementedError

    # ---- the kernel

    def kernel_options(self, options: Mapping[str, str | int | bool]) -> None:
        """Set kernel options, by their names without CONFIG_.

        A value is "y" or "n" (or True, False), a number, or a text; "m" is refused, as the kernel has no modules. It
        wins over what Anvil's kernel has. An option that Kconfig drops, or that the boot needs otherwise, jams a card
        within seconds of its start.
        """
        for name, value in options.items():
            self.extend("kernel", "options", values.option(name), {"value": values.option_value(value)})

    def kernel_fragment(self, fragment: Ref) -> None:
        """Set the kernel options of a fragment: lines as a .config has them."""
        self.extend("kernel", "fragments", self._label(fragment), {"fragment": fragment})

    def kernel_line(self, *words: str) -> None:
        """Add words to the kernel's command line in the medium's boot menu: "quiet", "mitigations=off"."""
        for word in words:
            name = values.kernel_word(word).partition("=")[0]
            self.extend("iso", "kernel-line", name, {"word": word})

    # ---- the root

    def root_file(self, path: str, content: Ref, *, mode: int = 0o644) -> None:
        """Put one file at ``path`` of the root, in place of what Anvil has there."""
        value: Value = {"kind": "file", "mode": values.mode(mode), "content": content}
        self.extend("rootfs", "root", values.root_path(path), value)

    def root_text(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Put a text at ``path`` of the root, as it stands here."""
        value: Value = {"kind": "text", "mode": values.mode(mode), "text": text}
        self.extend("rootfs", "root", values.root_path(path), value)

    def root_link(self, path: str, target: str) -> None:
        """Put a symbolic link at ``path`` of the root; a target that begins with a slash begins at the root."""
        self.extend(
            "rootfs", "root", values.root_path(path), {"kind": "link", "target": values.line(target, "target")}
        )

    def root_tree(self, folder: Ref, *, name: str = "") -> None:
        """Lay all that is in a folder into the root. name: what it is called in messages."""
        self.extend("rootfs", "trees", name or self._label(folder), {"tree": folder})

    def payload(self, recipe: str, *, export: str = "root") -> None:
        """Lay another recipe's export, a folder, into the root."""
        self.root_tree(self.use(recipe, export), name=recipe)

    def hostname(self, name: str) -> None:
        """Call the machine so."""
        self.extend("rootfs", "hostname", "hostname", {"name": values.hostname(name)})

    # ---- people and services

    def user(
        self,
        name: str,
        *,
        uid: int,
        gid: int = 0,
        summary: str = "",
        home: str = "",
        shell: str = "/bin/sh",
        password: str = "",
        groups: Sequence[str] = (),
    ) -> None:
        """Add a user, and a group of the same name.

        gid: of that group; the uid where it is 0. home: "/home/NAME" where it is ""; made and owned by the user; "/"
        makes none. password: the hash of one (``busybox mkpasswd -m sha512``); without it nobody logs in by password.
        groups: more groups that the user is in, which exist.
        """
        value: Value = {
            "uid": values.uid(uid),
            "gid": values.uid(gid or uid),
            "summary": values.line(summary, "summary", empty=True, without=":,"),
            "home": "/" if home == "/" else values.absolute(home or f"/home/{name}", "a home"),
            "shell": values.absolute(shell, "a shell"),
            "password": values.password_hash(password),
            "groups": " ".join(values.user(group) for group in groups),
        }
        self.extend("rootfs", "users", values.user(name), value)

    def ssh_key(self, user: str, key: str) -> None:
        """Let whoever has the private half of this public key log in as ``user``, root or one that is added.

        The first key brings the ssh server into the image and starts it; without keys nothing listens.
        """
        line = values.ssh_key(key)
        name = f"{values.user(user)} {' '.join(line.split(' ')[1:])[-64:]}"
        self.extend("rootfs", "ssh-keys", name, {"user": user, "key": line})

    def service(
        self, name: str, command: str, *, once: bool = False, user: str = "root", console: bool = False
    ) -> None:
        """Start a command at boot, and again whenever it ends unless ``once``.

        command: a line for the shell, beginning with the program's absolute path; it stays in the foreground. What it
        says is in /run/log/NAME/current, the last 400 kB of it; with ``console`` on the serial console too.
        """
        value: Value = {
            "command": values.command(command),
            "once": once,
            "user": values.user(user),
            "console": console,
        }
        self.extend("rootfs", "services", values.service(name), value)

    def _label(self, ref: Ref) -> str:
        """What a reference is called in messages: the same for the same thing, another for each other one."""
        data = ref.data
        if "use" in data:
            return "/".join(part for part in (*data["use"], data["path"]) if part)
        own = data.get("file") or data.get("source") or f"{data['step']}/{data['tree']}/{data['path']}".rstrip("/")
        return f"{self.name}:{own}"
