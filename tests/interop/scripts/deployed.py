import modal
import modal.runner

app = modal.App("interop-deployed", image=modal.Image.debian_slim())


@app.function(schedule=modal.Period(days=1))
def daily(n: int = 1):
    return n + 1


@app.function(schedule=modal.Cron("0 9 * * *"), timeout=60)
def nine():
    pass


@app.cls()
class Greeter:
    @modal.method()
    def greet(self, who):
        return f"hi {who}"


if __name__ == "__main__":
    with modal.enable_output():
        modal.runner.deploy_app(app)
    f = modal.Function.from_name("interop-deployed", "daily")
    print("deployed", f.remote(41))
    print("variant", f.with_options(timeout=10).remote(1))
    print("cls", modal.Cls.from_name("interop-deployed", "Greeter")().greet.remote("you"))
    other = modal.App()

    @other.function(serialized=True)
    def inner():
        return modal.Function.from_name("interop-deployed", "daily").remote(9)

    with modal.runner.run_app(other):
        print("from inside", inner.remote())
