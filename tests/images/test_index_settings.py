"""What pip is told on a machine reaches uv; what uv is told itself wins."""

from __future__ import annotations

from pathlib import Path

from minimodal.images.index_settings import local_paths, package_environment


def test_pip_conf_in_uvs_words(tmp_path: Path) -> None:
    first, second = tmp_path / "one.conf", tmp_path / "two.conf"
    first.write_text(
        "[global]\nindex-url = https://one/simple\nextra-index-url =\n  https://a/simple\n"
        "  https://b/simple\ntrusted-host = a\nno-index = false\ntimeout = 7\n"
    )
    second.write_text("[global]\nindex_url = https://two/simple\n[install]\nfind-links = /w1 /w2\n")
    found = package_environment({}, (first, second))
    assert found == {
        "UV_DEFAULT_INDEX": "https://two/simple",
        "UV_INDEX": "https://a/simple https://b/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/w1,/w2",
        "UV_INSECURE_HOST": "a",
        "UV_HTTP_TIMEOUT": "7",
    }


def test_the_environment_wins_over_files_and_uvs_own_over_pips(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://file/simple\n")
    found = package_environment({"PIP_INDEX_URL": "https://env/simple"}, (file,))
    assert found["UV_DEFAULT_INDEX"] == "https://env/simple"
    found = package_environment({"UV_DEFAULT_INDEX": "https://uv/simple"}, (file,))
    assert found["UV_DEFAULT_INDEX"] == "https://uv/simple"
    assert package_environment({"UV_CACHE_DIR": "/x", "PIP_TARGET": "/y"}, ()) == {}


def test_a_broken_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("index-url = x\n")
    assert package_environment({}, (tmp_path / "pip.conf", tmp_path / "none")) == {}


def test_certificates_and_proxies(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    found = package_environment({"PIP_CERT": str(bundle), "https_proxy": "http://p:1"}, ())
    assert found["SSL_CERT_FILE"] == found["REQUESTS_CA_BUNDLE"] == str(bundle)
    assert found["HTTPS_PROXY"] == found["https_proxy"] == "http://p:1"
    assert "SSL_CERT_FILE" not in package_environment({"SSL_CERT_FILE": "/no/such/file"}, ())


def test_paths_that_a_sandbox_must_see(tmp_path: Path) -> None:
    wheels, index = tmp_path / "wheels", tmp_path / "index"
    wheels.mkdir()
    index.mkdir()
    environment = {
        "UV_FIND_LINKS": f"{wheels},https://x",
        "UV_INDEX": f"mine=file://{index} /no/such",
        "OTHER": str(tmp_path),
    }
    assert sorted(local_paths(environment)) == sorted({str(wheels), str(index)})
