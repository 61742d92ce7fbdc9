// What the browser keeps: the key until the tab closes, the choice of light or dark for good.

function guarded(action, otherwise) {
  try {
    return action();
  } catch {
    return otherwise; // storage is switched off
  }
}

export const key = {
  get: () => guarded(() => sessionStorage.getItem("bandweave.key") ?? "", ""),
  set: (value) => guarded(() => sessionStorage.setItem("bandweave.key", value)),
};

/** "light", "dark", or "auto" for the system's own. */
export const theme = {
  get: () => guarded(() => localStorage.getItem("bandweave.theme") ?? "auto", "auto"),
  set: (value) => guarded(() => localStorage.setItem("bandweave.theme", value)),
};

export function isDark(choice) {
  return choice === "dark" || (choice === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
}

export function applyTheme(choice) {
  document.documentElement.dataset.theme = isDark(choice) ? "dark" : "light";
}
