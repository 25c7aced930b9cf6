// Sliders show how much of the second picture lies over the first; a click on a picture shows it large.
const zoom = document.getElementById("zoom");

document.addEventListener("input", (event) => {
  const box = event.target.closest(".compare");
  if (box) box.style.setProperty("--at", event.target.value + "%");
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.zoom");
  if (button) {
    const from = button.querySelector("img"), to = zoom.querySelector("img");
    to.src = from.src;
    to.alt = from.alt;
    to.className = from.className;
    zoom.querySelector("p").textContent = button.dataset.said || from.alt;
    zoom.showModal();
  } else if (event.target.closest("#zoom")) {
    zoom.close();
  }
});
