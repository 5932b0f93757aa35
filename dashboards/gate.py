"""Who may see the pages. On this machine's own address everybody who can reach it; on another address only who knows the token, or whom a
provider signed in and the list of people names (``people``), whatever the address.

The token is in the environment of the server (``WORKBENCH_DASHBOARD_TOKEN``), never on a command line or in an address. ``launch``
refuses another address without one, and so does this gate: whatever started the server, the address it is bound to decides.
"""

from __future__ import annotations

import hmac
import time

import streamlit as st

from dashboards import people
from dashboards.launch import SHORTEST, TOKEN, is_local, token

WAIT_S = 1.0
"""A wrong token is answered after so long."""


def pass_or_stop() -> None:
    """Go on where the session may see the pages; else show the one question, or say why there is none, and stop."""
    if people.wanted():
        signed_in_or_stop()
        return
    wanted = token()
    if not wanted and is_local(str(st.get_option("server.address") or "")):
        return
    if st.session_state.get("let in") is True:
        return
    st.set_page_config(page_title="Assay", layout="centered")
    st.title("Assay")
    if len(wanted) < SHORTEST:
        st.error(
            "These pages are served on an address that other machines reach, and nobody is asked who they are. They stay closed until "
            f"`{TOKEN}` holds at least {SHORTEST} characters in the server's environment."
        )
        st.stop()
    typed = st.text_input("Token of this server", type="password", key="token", autocomplete="current-password")
    if typed and hmac.compare_digest(typed.encode(), wanted.encode()):
        st.session_state["let in"] = True
        st.rerun()
    if typed:
        time.sleep(WAIT_S)
        st.error("That is not the token of this server. Whoever started it knows it.")
    st.stop()


def signed_in_or_stop() -> None:
    """Go on for who has signed in and is listed; else show the button, or say that they are not listed, and stop."""
    user = dict(st.user)
    if user.get("is_logged_in") and people.meant_for_us(user) and people.may_enter(user, people.people()):
        return
    st.set_page_config(page_title="Assay", layout="centered")
    st.title("Assay")
    if user.get("is_logged_in"):
        st.error("You have signed in, and these pages are not open to you. Whoever runs this server keeps the list of who may see them.")
        st.button("Sign out", on_click=st.logout, key="sign-out")
    else:
        st.button("Sign in", on_click=st.login, key="sign-in", type="primary")
    st.stop()
